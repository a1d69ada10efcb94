//! Annotations, read once: which fields come from where.

use std::sync::Arc;

use http::Method;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
};
use weir_proto::google::api::HttpRule;
use weir_proto::google::api::http_rule::Pattern;

use super::BuildError;
use super::template::{Template, Variable};
use super::text;

/// One HTTP binding of one method.
pub(super) struct Binding {
    pub method: MethodDescriptor,
    pub input: MessageDescriptor,
    pub output: MessageDescriptor,
    /// `/package.Service/Method`.
    pub grpc_path: String,
    /// None: any.
    pub http_method: Option<Method>,
    pub template: Template,
    /// The fields of the template's variables, in the same order.
    pub variables: Vec<Target>,
    pub body: Body,
    pub response_body: Option<FieldDescriptor>,
    /// 0 for the rule itself, from 1 for its additional bindings.
    pub ordinal: usize,
}

/// Longest path of a field. Messages are encoded by recursion, so what a query
/// names must not be as deep as the query is long.
const MAX_DEPTH: usize = 32;

/// A field within a message, by the fields that lead to it; never empty.
#[derive(Clone)]
pub(super) struct Target(pub Vec<FieldDescriptor>);

/// What an HTTP body is.
pub(super) enum Body {
    None,
    All,
    Field(FieldDescriptor),
}

impl Binding {
    pub fn full_name(&self) -> &str {
        self.method.full_name()
    }

    /// The template's variables with their fields.
    pub fn bound(&self) -> impl Iterator<Item = (&Variable, &Target)> {
        self.template.variables.iter().zip(&self.variables)
    }
}

impl Target {
    /// Finds a dotted path of JSON or original names. The inner fields must be
    /// single messages.
    ///
    /// # Errors
    /// The message that lacks a field and the field, or none when a field within
    /// the path has no fields that can be reached, or the path is too long.
    pub fn find(
        root: &MessageDescriptor,
        path: &str,
    ) -> Result<Self, Option<(MessageDescriptor, String)>> {
        let mut fields: Vec<FieldDescriptor> = Vec::new();
        for name in path.split('.') {
            if fields.len() == MAX_DEPTH {
                return Err(None);
            }
            let desc = match fields.last() {
                None => root.clone(),
                Some(field) if field.is_list() || field.is_map() => return Err(None),
                Some(field) => match field.kind() {
                    Kind::Message(desc) if !text::has_text_form(&desc) => desc,
                    _ => return Err(None),
                },
            };
            match field(&desc, name) {
                Some(field) => fields.push(field),
                None => return Err(Some((desc, name.to_owned()))),
            }
        }
        Ok(Self(fields))
    }

    /// The path in JSON names.
    pub fn json_name(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(FieldDescriptor::json_name).collect();
        names.join(".")
    }

    /// Whether one of the two is the other, or within it.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a.number() == b.number())
    }

    /// Sets the field, making the messages around it. Of a repeated field, `value`
    /// becomes one more element.
    ///
    /// # Errors
    /// A oneof of which another member is set already.
    pub fn set(
        &self,
        mut message: &mut DynamicMessage,
        value: prost_reflect::Value,
    ) -> Result<(), String> {
        let Some((leaf, around)) = self.0.split_last() else { return Ok(()) };
        for field in around {
            check_oneof(message, field)?;
            let Some(inner) = message.get_field_mut(field).as_message_mut() else {
                return Ok(());
            };
            message = inner;
        }
        check_oneof(message, leaf)?;
        if leaf.is_list() {
            if let Some(list) = message.get_field_mut(leaf).as_list_mut() {
                list.push(value);
            }
        } else {
            message.set_field(leaf, value);
        }
        Ok(())
    }

    /// The field's value, if it is set.
    pub fn get(&self, message: &DynamicMessage) -> Option<prost_reflect::Value> {
        let mut value = None;
        for field in &self.0 {
            let message = match &value {
                None => message,
                Some(prost_reflect::Value::Message(inner)) => inner,
                Some(_) => return None,
            };
            if !message.has_field(field) {
                return None;
            }
            let next = message.get_field(field).into_owned();
            value = Some(next);
        }
        value
    }
}

fn check_oneof(message: &DynamicMessage, field: &FieldDescriptor) -> Result<(), String> {
    let Some(oneof) = field.containing_oneof() else { return Ok(()) };
    match oneof.fields().find(|other| other != field && message.has_field(other)) {
        Some(other) => Err(format!("cannot be set together with {}", other.json_name())),
        None => Ok(()),
    }
}

/// A field by its JSON or its original name.
pub(super) fn field(desc: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    desc.get_field_by_json_name(name).or_else(|| desc.get_field_by_name(name))
}

/// The parts of `google.protobuf.FileDescriptorSet` that lead to the annotation.
/// Read apart from the pool, as a set may carry the option's bytes without the
/// file that declares it.
mod raw {
    use super::HttpRule;

    #[derive(prost::Message)]
    pub struct Set {
        #[prost(message, repeated, tag = "1")]
        pub file: Vec<File>,
    }
    #[derive(prost::Message)]
    pub struct File {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub package: String,
        #[prost(string, tag = "12")]
        pub syntax: String,
        #[prost(message, repeated, tag = "6")]
        pub service: Vec<Service>,
    }
    #[derive(prost::Message)]
    pub struct Service {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(message, repeated, tag = "2")]
        pub method: Vec<Method>,
    }
    #[derive(prost::Message)]
    pub struct Method {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(message, optional, tag = "4")]
        pub options: Option<Options>,
    }
    #[derive(prost::Message)]
    pub struct Options {
        #[prost(message, optional, tag = "72295728")]
        pub http: Option<HttpRule>,
    }
}

/// Reads a set and all its annotations.
pub(super) fn compile(
    descriptor_set: &[u8],
) -> Result<(DescriptorPool, Vec<Arc<Binding>>), BuildError> {
    let set = raw::Set::decode(descriptor_set)
        .map_err(|error| BuildError::Descriptors(error.to_string()))?;
    // prost-reflect panics on other syntaxes, and editions are one.
    if let Some(file) = set.file.iter().find(|f| !matches!(&*f.syntax, "" | "proto2" | "proto3")) {
        let raw::File { name, syntax, .. } = file;
        let why = format!("{name} has syntax {syntax:?}; only proto2 and proto3 are supported");
        return Err(BuildError::Descriptors(why));
    }
    let pool = DescriptorPool::decode(descriptor_set)
        .map_err(|error| BuildError::Descriptors(error.to_string()))?;
    let mut bindings = Vec::new();
    for file in set.file {
        for service in file.service {
            let full_name = match file.package.as_str() {
                "" => service.name,
                package => format!("{package}.{}", service.name),
            };
            let Some(descriptor) = pool.get_service_by_name(&full_name) else { continue };
            for method in service.method {
                let Some(mut rule) = method.options.and_then(|o| o.http) else { continue };
                let Some(method) = descriptor.methods().find(|m| m.name() == method.name) else {
                    continue;
                };
                if method.is_client_streaming() {
                    continue;
                }
                let additional = std::mem::take(&mut rule.additional_bindings);
                for (ordinal, rule) in std::iter::once(rule).chain(additional).enumerate() {
                    bindings.push(Arc::new(binding(&method, rule, ordinal)?));
                }
            }
        }
    }
    Ok((pool, bindings))
}

fn binding(
    method: &MethodDescriptor,
    rule: HttpRule,
    ordinal: usize,
) -> Result<Binding, BuildError> {
    let full_name = method.full_name().to_owned();
    let (http_method, source) = pattern(rule.pattern, &full_name)?;
    let template = Template::parse(&source).map_err(|error| BuildError::Template {
        method: full_name.clone(),
        template: source,
        source: error,
    })?;
    let wrong = |part, field: &str, reason| BuildError::Field {
        method: full_name.clone(),
        part,
        field: field.to_owned(),
        reason,
    };
    let (input, output) = (method.input(), method.output());
    let mut variables = Vec::with_capacity(template.variables.len());
    for Variable { field, .. } in &template.variables {
        let part = "path variable";
        let target = Target::find(&input, field)
            .map_err(|_| wrong(part, field, "is not a field of the request"))?;
        if target.0.last().is_none_or(|leaf| !is_single_text(leaf)) {
            return Err(wrong(part, field, "must be a single value, neither list nor message"));
        }
        variables.push(target);
    }
    let body = match rule.body.as_str() {
        "" => Body::None,
        "*" => Body::All,
        name => Body::Field(
            field(&input, name)
                .ok_or_else(|| wrong("body", name, "is not a field of the request"))?,
        ),
    };
    let response_body = match rule.response_body.as_str() {
        "" => None,
        name => Some(
            field(&output, name)
                .ok_or_else(|| wrong("response_body", name, "is not a field of the response"))?,
        ),
    };
    Ok(Binding {
        method: method.clone(),
        input,
        output,
        grpc_path: format!("/{}/{}", method.parent_service().full_name(), method.name()),
        http_method,
        template,
        variables,
        body,
        response_body,
        ordinal,
    })
}

/// Whether a path variable or a query parameter can hold one of it.
pub(super) fn is_text(kind: &Kind) -> bool {
    match kind {
        Kind::Message(desc) => text::has_text_form(desc),
        _ => true,
    }
}

fn is_single_text(field: &FieldDescriptor) -> bool {
    !field.is_list() && !field.is_map() && is_text(&field.kind())
}

fn pattern(pattern: Option<Pattern>, method: &str) -> Result<(Option<Method>, String), BuildError> {
    Ok(match pattern {
        Some(Pattern::Get(path)) => (Some(Method::GET), path),
        Some(Pattern::Put(path)) => (Some(Method::PUT), path),
        Some(Pattern::Post(path)) => (Some(Method::POST), path),
        Some(Pattern::Delete(path)) => (Some(Method::DELETE), path),
        Some(Pattern::Patch(path)) => (Some(Method::PATCH), path),
        Some(Pattern::Custom(custom)) if custom.kind == "*" => (None, custom.path),
        Some(Pattern::Custom(custom)) => match Method::from_bytes(custom.kind.as_bytes()) {
            Ok(kind) => (Some(kind), custom.path),
            Err(_) => {
                return Err(BuildError::Method { method: method.to_owned(), kind: custom.kind });
            }
        },
        None => (None, String::new()),
    })
}
