//! Bindings that Weir's own schemas do not have.

use http::Method;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};

use super::{call, check_openapi, refused};
use crate::transcode::{BuildError, Call, Found, Transcoder};

const SCHEMA: &str = r#"
syntax = "proto3";
package odd;
import "google/api/annotations.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

enum Colour { COLOUR_UNSPECIFIED = 0; RED = 1; }
message Inner { string name = 1; Inner inner = 2; repeated int32 numbers = 3; }
message All {
  string name = 1;
  Inner inner = 2;
  Colour colour = 3;
  repeated Colour colours = 4;
  google.protobuf.Timestamp at = 5;
  google.protobuf.Duration within = 6;
  google.protobuf.FieldMask update_mask = 7;
  google.protobuf.Int64Value maybe = 8;
  google.protobuf.BoolValue perhaps = 9;
  optional string note = 10;
  bytes data = 11;
  float ratio = 12;
  bool yes = 13;
  int64 big = 14;
  map<string, string> labels = 15;
  repeated Inner inners = 16;
  repeated string tags = 17;
  oneof choice { string left = 18; Inner right = 19; }
  sint32 id = 20;
}
service Odd {
  rpc Book(All) returns (All) { option (google.api.http) = {get: "/v1/{name=shelves/*/books/*}:read"}; }
  rpc File(All) returns (All) { option (google.api.http) = {get: "/v1/files/{name=**}"}; }
  rpc Any(All) returns (All) { option (google.api.http) = {custom {kind: "*" path: "/v1/any/*/{id}"}}; }
  rpc Purge(All) returns (All) { option (google.api.http) = {custom {kind: "PURGE" path: "/v1/cache"}}; }
  rpc Tags(All) returns (All) {
    option (google.api.http) = {post: "/v1/tags" body: "tags" response_body: "inner"
      additional_bindings {put: "/v1/names/{inner.inner.name}" body: "inner" response_body: "tags"}};
  }
  rpc Query(All) returns (All) { option (google.api.http) = {get: "/v1/query"}; }
  rpc Up(stream All) returns (All) { option (google.api.http) = {post: "/v1/up" body: "*"}; }
  rpc Unbound(All) returns (All);
}
"#;

fn compile(schema: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("odd.proto"), schema).unwrap();
    let shared = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let mut compiler = protox::Compiler::new([dir.path(), &shared]).unwrap();
    compiler.include_imports(true).include_source_info(true).open_file("odd.proto").unwrap();
    compiler.encode_file_descriptor_set()
}

fn odd() -> Transcoder {
    Transcoder::new(&compile(SCHEMA)).unwrap()
}

/// What the service would read, as JSON without defaults.
fn sent(call: &Call, query: &str, body: &str) -> Value {
    let message = call.encode_request(Some(query), body.as_bytes()).unwrap();
    let pool = DescriptorPool::decode(compile(SCHEMA).as_slice()).unwrap();
    let desc = pool.get_message_by_name("odd.All").unwrap();
    serde_json::to_value(DynamicMessage::decode(desc, message).unwrap()).unwrap()
}

#[test]
fn a_variable_of_several_segments_keeps_encoded_slashes() {
    let odd = odd();
    let book = call(&odd, &Method::GET, "/v1/shelves/a%20b/books/c%2Fd%3A:read");
    assert_eq!(sent(&book, "", ""), json!({"name": "shelves/a b/books/c%2Fd:"}));
    assert!(matches!(odd.find(&Method::GET, "/v1/shelves/a/books/b"), Found::NotFound));
    assert!(matches!(odd.find(&Method::GET, "/v1/shelves/a/books/:read"), Found::NotFound));

    let file = call(&odd, &Method::GET, "/v1/files/a/b%2fc/d:e");
    assert_eq!(sent(&file, "", ""), json!({"name": "a/b%2fc/d:e"}));
    let none = call(&odd, &Method::GET, "/v1/files");
    assert_eq!(sent(&none, "", ""), json!({}));
}

#[test]
fn custom_methods() {
    let odd = odd();
    let any = call(&odd, &Method::OPTIONS, "/v1/any/thing/-7");
    assert_eq!(sent(&any, "", ""), json!({"id": -7}));
    assert_eq!(
        refused(&call(&odd, &Method::GET, "/v1/any/thing/x"), "", ""),
        ["id: \"x\" is not a 32-bit integer"]
    );
    let purge = Method::from_bytes(b"PURGE").unwrap();
    assert_eq!(call(&odd, &purge, "/v1/cache").method(), "Purge");
    match odd.find(&Method::GET, "/v1/cache") {
        Found::MethodNotAllowed(allowed) => assert_eq!(allowed, [purge]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_body_may_be_one_field_of_any_kind() {
    let odd = odd();
    let tags = call(&odd, &Method::POST, "/v1/tags");
    assert_eq!(sent(&tags, "name=n", r#"["a","b"]"#), json!({"name": "n", "tags": ["a", "b"]}));
    assert_eq!(refused(&tags, "", r#"["a",1]"#), ["tags[1]: is integer, expected a string"]);
    // What follows the value must not become another field.
    assert!(refused(&tags, "", r#"["a"],"name":"x""#)[0].starts_with("the body is not JSON"));

    let names = call(&odd, &Method::PUT, "/v1/names/deep");
    assert_eq!(
        sent(&names, "", r#"{"numbers":[1]}"#),
        json!({"inner": {"numbers": [1], "inner": {"name": "deep"}}})
    );
}

#[test]
fn an_answer_may_be_one_field() {
    let odd = odd();
    let desc = DescriptorPool::decode(compile(SCHEMA).as_slice()).unwrap();
    let desc = desc.get_message_by_name("odd.All").unwrap();
    let source = json!({"inner": {"name": "n"}, "tags": ["t"]});
    let message =
        prost::Message::encode_to_vec(&DynamicMessage::deserialize(desc, source).unwrap());
    let answer = |method, path| -> Value {
        serde_json::from_slice(&call(&odd, method, path).decode_response(&message).unwrap())
            .unwrap()
    };
    assert_eq!(answer(&Method::POST, "/v1/tags"), json!({"name": "n", "numbers": []}));
    assert_eq!(answer(&Method::PUT, "/v1/names/x"), json!(["t"]));
}

#[test]
fn query_parameters_of_every_kind() {
    let query = call(&odd(), &Method::GET, "/v1/query");
    let text = "name=a%26b&inner.inner.numbers=1&inner.inner.numbers=2&colour=RED&colours=1\
        &colours=COLOUR_UNSPECIFIED&at=2026-11-21T09:30:00Z&within=1.5s\
        &updateMask=name,inner.displayName,a_b&maybe=7&perhaps=true&note=&data=-_8\
        &ratio=0.5&yes=true&big=-9007199254740993&left=l";
    assert_eq!(
        sent(&query, text, ""),
        json!({
            "name": "a&b",
            "inner": {"inner": {"numbers": [1, 2]}},
            "colour": "RED",
            "colours": ["RED", "COLOUR_UNSPECIFIED"],
            "at": "2026-11-21T09:30:00Z",
            "within": "1.500s",
            "updateMask": "name,inner.displayName,aB",
            "maybe": "7",
            "perhaps": true,
            "note": "",
            "data": "+/8=",
            "ratio": 0.5,
            "yes": true,
            "big": "-9007199254740993",
            "left": "l",
        })
    );
}

#[test]
fn query_parameters_that_are_refused() {
    let query = call(&odd(), &Method::GET, "/v1/query");
    let outside =
        "is too deep, or within a list, a map or a plain value; a parameter cannot reach it";
    let holds = "is a map or a list of messages, which a parameter cannot hold";
    for (text, error) in [
        ("labels.a=b", format!("labels.a: {outside}")),
        ("name.a=b", format!("name.a: {outside}")),
        ("at.seconds=1", format!("at.seconds: {outside}")),
        ("inners=b", format!("inners: {holds}")),
        ("labels=b", format!("labels: {holds}")),
        (
            "at=yesterday",
            "at: \"yesterday\" is not a time, such as 2026-11-21T09:30:00Z (RFC 3339)".into(),
        ),
        ("colour=BLUE", "colour: \"BLUE\" is not one of COLOUR_UNSPECIFIED, RED".into()),
        ("ratio=1e39", "ratio: \"1e39\" is not a 32-bit floating point number".into()),
        ("yes=1", "yes: \"1\" is not true or false".into()),
        ("data=*", "data: \"*\" is not base64".into()),
        ("left=l&right.name=r", "right.name: cannot be set together with left".into()),
        ("right.name=r&left=l", "left: cannot be set together with right".into()),
        (
            "inner=x",
            "inner: has no form as a parameter; set its fields, such as `parent.child=x`".into(),
        ),
        ("name=%ff", "name: is not UTF-8 once percent-decoded".into()),
        ("%zz=1", "%zz: has a '%' without two hexadecimal digits".into()),
    ] {
        assert_eq!(refused(&query, text, ""), [error]);
    }
}

#[test]
fn hostile_query_strings_cost_little() {
    let query = call(&odd(), &Method::GET, "/v1/query");
    let deep = format!("{}name=x", "inner.".repeat(10_000));
    assert_eq!(refused(&query, &deep, "").len(), 1);
    let many: String = (0..10_000).map(|i| format!("x{i}=&")).collect();
    assert_eq!(refused(&query, &many, "").len(), 20);
}

#[test]
fn methods_that_stream_from_the_client_have_no_binding() {
    assert!(matches!(odd().find(&Method::POST, "/v1/up"), Found::NotFound));
}

#[test]
fn openapi_of_odd_bindings() {
    let document = odd().openapi("odd", "1", &[]);
    check_openapi(&document);
    let book = &document["paths"]["/v1/shelves/{name.1}/books/{name.2}:read"]["get"];
    assert_eq!(book["operationId"], "Odd_Book");
    assert_eq!(
        document["paths"]["/v1/names/{inner.inner.name}"]["put"]["operationId"],
        "Odd_Tags_2"
    );
    assert!(document["paths"].get("/v1/cache").is_none(), "OpenAPI has no place for PURGE");
}

#[test]
fn an_annotation_that_cannot_be_used_is_named() {
    let with = |rule: &str| {
        let schema = SCHEMA.replace(r#"{get: "/v1/query"}"#, rule);
        Transcoder::new(&compile(&schema)).unwrap_err()
    };
    assert_eq!(
        with(r#"{get: "/v1/{nmae}"}"#).to_string(),
        r#"odd.Odd.Query: path variable "nmae" is not a field of the request"#
    );
    assert!(matches!(with(r#"{get: "/v1/{tags}"}"#), BuildError::Field { .. }));
    assert!(matches!(with(r#"{get: "/v1/{inner}"}"#), BuildError::Field { .. }));
    assert!(matches!(with(r#"{post: "/v1/q" body: "x"}"#), BuildError::Field { part: "body", .. }));
    assert!(matches!(
        with(r#"{get: "/v1/q" response_body: "x"}"#),
        BuildError::Field { part: "response_body", .. }
    ));
    assert_eq!(
        with(r#"{get: "/v1/{name"}"#).to_string(),
        "odd.Odd.Query: path template \"/v1/{name\": has an unbalanced '{' or '}'"
    );
    assert!(matches!(with(r#"{custom {kind: "A B" path: "/x"}}"#), BuildError::Method { .. }));
    assert_eq!(
        with(r#"{get: "/v1/files/**"}"#).to_string(),
        r#"odd.Odd.Query: "/v1/files/**" is taken by odd.Odd.File"#
    );
}

#[test]
fn editions_are_refused_by_name() {
    // Field 1 of the set is a file: its name (1) and its syntax (12).
    let set = b"\x0a\x11\x0a\x05a.prt\x62\x08editions";
    assert_eq!(
        Transcoder::new(set).unwrap_err().to_string(),
        "the descriptor set cannot be read: a.prt has syntax \"editions\"; only proto2 and proto3 \
         are supported (it must include its imports)"
    );
}
