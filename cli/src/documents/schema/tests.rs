use super::*;
use crate::documents::tests::doc_examples;
use crate::mesh_file::tree::Node;
use crate::mesh_file::{EXAMPLE, MeshFile, Origin, STARTER};

/// What is wrong with a value by a schema, as far as our schemas say anything.
struct Checker<'a> {
    root: &'a Value,
    found: Vec<String>,
}

fn wrong(root: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut checker = Checker { root, found: Vec::new() };
    checker.check(schema, value, "");
    checker.found
}

impl Checker<'_> {
    fn fits(&self, schema: &Value, value: &Value) -> bool {
        wrong(self.root, schema, value).is_empty()
    }

    fn note(&mut self, holds: bool, at: &str, what: &Value) {
        if !holds {
            self.found.push(format!("{at}: {what}"));
        }
    }

    fn check(&mut self, schema: &Value, value: &Value, at: &str) {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.strip_prefix("#/$defs/").unwrap();
            let target = &self.root["$defs"][name];
            assert!(target.is_object(), "{reference} leads nowhere");
            self.check(target, value, at);
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            if part["if"].is_null() {
                self.check(part, value, at);
            } else if self.fits(&part["if"], value) {
                self.check(&part["then"], value, at);
            }
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(choices) = schema[key].as_array() {
                let any = choices.iter().any(|choice| self.fits(choice, value));
                self.note(any, at, &schema[key]);
            }
        }
        if let Some(wanted) = schema.get("const") {
            self.note(wanted == value, at, wanted);
        }
        if let Some(wanted) = schema["enum"].as_array() {
            self.note(wanted.contains(value), at, &schema["enum"]);
        }
        self.check_type(schema, value, at);
        self.check_object(schema, value, at);
        for (i, item) in value.as_array().into_iter().flatten().enumerate() {
            self.check(&schema["items"], item, &format!("{at}[{i}]"));
        }
        let number = value.as_f64();
        let (least, most) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
        let inside = number.is_none_or(|n| {
            least.is_none_or(|least| n >= least) && most.is_none_or(|most| n <= most)
        });
        self.note(inside, at, &json!("range"));
        let items = value.as_array().map_or(u64::MAX, |items| items.len() as u64);
        self.note(items >= schema["minItems"].as_u64().unwrap_or(0), at, &json!("minItems"));
    }

    fn check_type(&mut self, schema: &Value, value: &Value, at: &str) {
        let is = |name: &Value| match name.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            other => panic!("{other}"),
        };
        let holds = match &schema["type"] {
            Value::Null => true,
            Value::Array(names) => names.iter().any(is),
            name => is(name),
        };
        self.note(holds, at, &schema["type"]);
    }

    fn check_object(&mut self, schema: &Value, value: &Value, at: &str) {
        let Some(map) = value.as_object() else { return };
        for (name, value) in map {
            let at = format!("{at}.{name}");
            match schema["properties"].get(name) {
                Some(schema) => self.check(schema, value, &at),
                None => {
                    let closed = schema["additionalProperties"] == false;
                    self.note(!closed, &at, &json!("unknown"));
                }
            }
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            self.note(map.contains_key(name.as_str().unwrap()), at, name);
        }
    }
}

#[test]
fn every_example_is_valid() {
    let any = any();
    let mut examples = doc_examples();
    for text in [EXAMPLE, STARTER] {
        examples.push(("a shipped mesh".to_owned(), Node::parse(text).unwrap().to_json()));
    }
    for (place, example) in examples {
        assert_eq!(wrong(&any, &any, &example), [""; 0], "{place}: {example}");
        let kind = example["kind"].as_str().unwrap();
        let own = of(kind).unwrap();
        assert_eq!(wrong(&own, &own, &example), [""; 0], "{place}: {example}");
    }
}

#[test]
fn mistakes_of_form_are_not() {
    let any = any();
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "a"},
        "spec": {"parentRefs": [{"name": "gateway"}], "rules": [{"backendRefs": [{"name": "web"}]}]},
    });
    let policy = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "BackendTrafficPolicy", "metadata": {"name": "a"},
        "spec": {"targetRefs": [{"kind": "Service", "name": "web"}]},
    });
    assert!(wrong(&any, &any, &route).is_empty() && wrong(&any, &any, &policy).is_empty());
    for (document, at, value) in [
        (&route, "/kind", json!("HTTPRuote")),
        (&route, "/apiVersion", json!("v1")),
        (&route, "/spec/parentRefs", json!([])),
        (&route, "/spec/rules", json!({})),
        (&route, "/spec/rules/0/backendRefs/0/name", json!(7)),
        (&route, "/metadata", json!({})),
        (&policy, "/spec/targetRefs/0/kind", json!("Servise")),
        (&policy, "/spec/targetRefs", json!([])),
        (&policy, "/spec", json!({"targetRef": []})),
    ] {
        let mut document = document.clone();
        *document.pointer_mut(at).unwrap() = value;
        assert!(!wrong(&any, &any, &document).is_empty(), "{document}");
        let mesh = json!({
            "apiVersion": "weir.dev/v1alpha1", "kind": "Mesh", "services": [
                {"name": "web", "protocol": "http1", "versions": [{"name": "v1"}]}],
            "routes": if document["spec"]["rules"].is_null() { json!([]) } else { json!([document]) },
            "policies": if document["spec"]["rules"].is_null() { json!([document]) } else { json!([]) },
        });
        assert!(!wrong(&any, &any, &mesh).is_empty(), "{mesh}");
    }
}

/// The reader of mesh files names all fields that it knows when it meets another.
#[test]
fn the_mesh_file_has_no_field_that_its_schema_lacks() {
    let text = "apiVersion: weir.dev/v1alpha1\nkind: Mesh\nzzz: 1\ngateway: {zzz: 1}\ntracing: {zzz: 1}\n\
                services:\n- {name: a, protocol: http1, zzz: 1, versions: [{name: v1, command: [sh], zzz: 1}]}\n";
    let origin = Origin { name: "mesh.yaml", directory: std::path::Path::new("."), public: true };
    let refused = MeshFile::parse(text, origin).unwrap_err();
    let schema = mesh();
    let service = &schema["properties"]["services"]["items"];
    let mut seen = 0;
    for mistake in refused.mistakes {
        let part = match mistake.field.as_str() {
            "zzz" => &schema,
            "gateway.zzz" => &schema["properties"]["gateway"],
            "tracing.zzz" => &schema["properties"]["tracing"],
            "services[0].zzz" => service,
            "services[0].versions[0].zzz" => &service["properties"]["versions"]["items"],
            other => panic!("{other}: {}", mistake.description),
        };
        let (_, known) = mistake.description.split_once("known are ").unwrap();
        for name in known.split(", ") {
            assert!(part["properties"].get(name).is_some(), "{}: {name}", mistake.field);
        }
        seen += 1;
    }
    assert_eq!(seen, 5);
}
