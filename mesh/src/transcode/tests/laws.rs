//! What holds for every input.

use std::collections::HashMap;

use http::Method;
use proptest::prelude::*;
use prost::Message as _;
use serde_json::Value;
use weir_proto::weir::control::v1 as pb;
use weir_proto::weir::mesh::v1::{Sticky, sticky::By};

use super::{Found, Transcoder, call, control};
use crate::transcode::{Deframer, error_json};

fn sticky() -> impl Strategy<Value = Option<Sticky>> {
    let by = prop_oneof![
        any::<String>().prop_map(By::Header),
        any::<String>().prop_map(By::Cookie),
        any::<bool>().prop_map(By::User),
    ];
    prop::option::of(prop::option::of(by).prop_map(|by| Sticky { by }))
}

prop_compose! {
    fn shift()(
        weights in prop::collection::hash_map(any::<String>(), any::<i32>(), 0..6),
        sticky in sticky(),
        flags in any::<[bool; 3]>(),
        numbers in any::<[u32; 2]>(),
        reason in any::<String>(),
    ) -> pb::ShiftRequest {
        let [clear_sticky, wait, allow_empty] = flags;
        let [wait_seconds, expected_revision] = numbers;
        pb::ShiftRequest {
            service: "products".into(),
            weights: weights.into_iter().collect::<HashMap<_, _>>(),
            sticky, clear_sticky, wait, wait_seconds, reason, expected_revision, allow_empty,
            ..Default::default()
        }
    }
}

thread_local! {
    static CONTROL: Transcoder = control();
}

proptest! {
    /// Message -> JSON -> message loses nothing. The JSON is written by the same
    /// code that writes answers, by way of an `Any` that holds the request.
    #[test]
    fn a_request_survives_its_json(message in shift()) {
        let json = CONTROL.with(|transcoder| {
            let status = weir_proto::google::rpc::Status {
                details: vec![prost_types::Any {
                    type_url: "t/weir.control.v1.ShiftRequest".into(),
                    value: message.encode_to_vec(),
                }],
                ..Default::default()
            };
            transcoder.error_json(0, "", Some(&status.encode_to_vec()))
        });
        let mut json: Value = serde_json::from_slice(&json).unwrap();
        let mut json = json["details"][0].take();
        json.as_object_mut().unwrap().remove("@type");
        let again = CONTROL.with(|transcoder| {
            let call = call(transcoder, &Method::POST, "/v1/services/products/shift");
            call.encode_request(None, json.to_string().as_bytes()).unwrap()
        });
        prop_assert_eq!(pb::ShiftRequest::decode(again).unwrap(), message);
    }

    /// A name of any text gets through the path, once it is percent-encoded.
    #[test]
    fn any_text_is_a_path_segment(name in "\\PC{1,20}") {
        let encoded: String = name.bytes().map(|b| format!("%{b:02X}")).collect();
        let message = CONTROL.with(|transcoder| {
            let call = call(transcoder, &Method::GET, &format!("/v1/services/{encoded}"));
            call.encode_request(None, b"").unwrap()
        });
        prop_assert_eq!(pb::GetServiceRequest::decode(message).unwrap().service, name);
    }

    /// Whatever comes, the answer is a result, never a panic.
    #[test]
    fn nothing_panics(
        path in "(/v1)?(/services|/routes|/history)?[/:%a-f{}*]{0,12}",
        query in "[a-z.=&%+\\[\\]é]{0,40}",
        body in prop::collection::vec(any::<u8>(), 0..60),
        text in "[{}\\[\\]:,\"a-z0-9.-]{0,60}",
    ) {
        CONTROL.with(|transcoder| {
            for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
                if let Found::Call(call) = transcoder.find(&method, &path) {
                    let _ = call.encode_request(Some(&query), &body);
                    let _ = call.encode_request(Some(&text), text.as_bytes());
                    let _ = call.decode_response(&body);
                }
            }
            let shift = call(transcoder, &Method::POST, "/v1/services/p/shift");
            let _ = shift.encode_request(None, &body);
            let _ = shift.encode_request(None, text.as_bytes());
            let routes = call(transcoder, &Method::GET, "/v1/routes");
            let _ = routes.decode_response(&body);
            let _ = transcoder.error_json(3, &text, Some(&body));
        });
        let _ = error_json(3, &text, Some(&body));
        let _ = Transcoder::new(&body);
        let mut frames = Deframer::new(16);
        frames.push(body.into());
        while let Ok(Some(_)) = frames.next_message() {}
    }

    /// Nor does a set that was damaged on its way.
    #[test]
    fn a_damaged_set_is_refused_or_read(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut set = weir_proto::descriptors::AUTH.to_vec();
        for (at, byte) in changes {
            let at = at.index(set.len());
            set[at] = byte;
        }
        if let Ok(transcoder) = Transcoder::new(&set) {
            let _ = transcoder.openapi("t", "1", &[]);
        }
    }
}

#[test]
fn a_body_that_is_nested_without_end_is_refused() {
    let transcoder = control();
    let shift = call(&transcoder, &Method::POST, "/v1/services/p/shift");
    let deep = "{\"sticky\":".repeat(10_000);
    assert!(shift.encode_request(None, deep.as_bytes()).is_err());
    assert!(shift.encode_request(None, "[".repeat(100_000).as_bytes()).is_err());
}
