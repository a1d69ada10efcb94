//! Values written as plain text: in paths and query parameters.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost_reflect::{DynamicMessage, EnumDescriptor, Kind, MessageDescriptor, Value};
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as TextError, StringDeserializer};

/// Decodes percent-encoding (RFC 3986, section 2.1).
///
/// `plus_is_space`: as forms do. `keep_slash`: leaves `%2F` as it is, which is
/// how a variable of several segments tells a slash within a segment from one
/// between two.
///
/// # Errors
/// What is wrong.
pub(super) fn percent_decode(
    text: &str,
    plus_is_space: bool,
    keep_slash: bool,
) -> Result<String, &'static str> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let [first, after @ ..] = bytes {
        bytes = after;
        match first {
            b'+' if plus_is_space => out.push(b' '),
            b'%' => {
                let [high, low, after @ ..] = bytes else {
                    return Err("has a '%' without two hexadecimal digits");
                };
                let digit = |b: u8| char::from(b).to_digit(16);
                let value = digit(*high).zip(digit(*low)).map(|(h, l)| h * 16 + l);
                let value = value.and_then(|v| u8::try_from(v).ok());
                let value = value.ok_or("has a '%' without two hexadecimal digits")?;
                if keep_slash && value == b'/' {
                    out.extend([b'%', *high, *low]);
                } else {
                    out.push(value);
                }
                bytes = after;
            }
            other => out.push(*other),
        }
    }
    String::from_utf8(out).map_err(|_| "is not UTF-8 once percent-decoded")
}

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Decodes base64 (RFC 4648), standard or URL-safe, padded or not.
pub(super) fn base64_decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

/// Reads a text as a value of `kind`. Messages are those well-known types whose
/// JSON form is a string, a number or a boolean.
///
/// # Errors
/// What is wrong, without the field's name.
pub(super) fn parse(kind: &Kind, text: &str) -> Result<Value, String> {
    let not = |what: &str| format!("{:?} is not {what}", shown(text));
    Ok(match kind {
        Kind::Double => Value::F64(float(text).ok_or_else(|| not("a number"))?),
        Kind::Float => {
            let wide = float(text).ok_or_else(|| not("a number"))?;
            if wide.is_finite() && wide.abs() > f64::from(f32::MAX) {
                return Err(not("a 32-bit floating point number"));
            }
            Value::F32(wide as f32)
        }
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            Value::I32(text.parse().map_err(|_| not("a 32-bit integer"))?)
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            Value::I64(text.parse().map_err(|_| not("a 64-bit integer"))?)
        }
        Kind::Uint32 | Kind::Fixed32 => {
            Value::U32(text.parse().map_err(|_| not("an integer from 0 to 4294967295"))?)
        }
        Kind::Uint64 | Kind::Fixed64 => {
            Value::U64(text.parse().map_err(|_| not("an integer from 0 to 2^64-1"))?)
        }
        Kind::Bool => Value::Bool(text.parse().map_err(|_| not("true or false"))?),
        Kind::String => Value::String(text.to_owned()),
        Kind::Bytes => Value::Bytes(base64_decode(text).ok_or_else(|| not("base64"))?.into()),
        Kind::Enum(desc) => Value::EnumNumber(enumeration(desc, text)?),
        Kind::Message(desc) => Value::Message(message(desc, text)?),
    })
}

/// Whether [`parse`] knows a text form of the type.
pub(super) fn has_text_form(desc: &MessageDescriptor) -> bool {
    let Some(name) = desc.full_name().strip_prefix("google.protobuf.") else { return false };
    matches!(name, "Timestamp" | "Duration" | "FieldMask")
        || matches!(name, "StringValue" | "BytesValue" | "BoolValue" | "FloatValue" | "DoubleValue")
        || matches!(name, "Int32Value" | "Int64Value" | "UInt32Value" | "UInt64Value")
}

fn float(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => text.parse().ok().filter(|v: &f64| v.is_finite()),
    }
}

fn enumeration(desc: &EnumDescriptor, text: &str) -> Result<i32, String> {
    let by_number = || desc.get_value(text.parse().ok()?);
    if let Some(value) = desc.get_value_by_name(text).or_else(by_number) {
        return Ok(value.number());
    }
    let names: Vec<String> = desc.values().map(|v| v.name().to_owned()).collect();
    Err(format!("{:?} is not one of {}", shown(text), names.join(", ")))
}

fn message(desc: &MessageDescriptor, text: &str) -> Result<DynamicMessage, String> {
    if !has_text_form(desc) {
        return Err("has no form as a parameter; set its fields, such as `parent.child=x`".into());
    }
    let mut out = DynamicMessage::new(desc.clone());
    match desc.full_name() {
        // Whoever writes a mask takes the names from where they see them: both
        // spellings are clear.
        "google.protobuf.FieldMask" => {
            let paths = text.split(',').filter(|p| !p.is_empty());
            let paths = paths.map(|p| Value::String(snake_case(p))).collect();
            out.set_field_by_name("paths", Value::List(paths));
        }
        "google.protobuf.Timestamp" | "google.protobuf.Duration" => {
            let read: StringDeserializer<TextError> = text.to_owned().into_deserializer();
            out = DynamicMessage::deserialize(desc.clone(), read).map_err(|_| {
                let like = match desc.name() {
                    "Timestamp" => "a time, such as 2026-11-21T09:30:00Z (RFC 3339)",
                    _ => "a duration, such as 1.5s",
                };
                format!("{:?} is not {like}", shown(text))
            })?;
        }
        _ => {
            let field = desc.get_field_by_name("value").ok_or("is no wrapper")?;
            out.set_field(&field, parse(&field.kind(), text)?);
        }
    }
    Ok(out)
}

/// `displayName` -> `display_name`.
fn snake_case(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 4);
    for c in text.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// As much of a text as an error shows.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
