//! What the webhook answers, and what `weir inject` makes of objects.

use serde_json::{Value, json};

use super::*;

fn review(object: Value, facts: &NamespaceFacts) -> Value {
    let body = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {"uid": "u-1", "namespace": "shop", "operation": "CREATE", "object": object},
    });
    let review = Review::parse(body.to_string().as_bytes()).unwrap();
    assert_eq!(review.namespace(), "shop");
    let answer = review.answer(&InjectConfig::default(), facts);
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(
        (&answer["kind"], &answer["apiVersion"]),
        (&json!("AdmissionReview"), &json!("admission.k8s.io/v1"))
    );
    assert_eq!(answer["response"]["uid"], "u-1");
    answer["response"].clone()
}

#[test]
fn the_api_server_gets_a_patch_a_warning_or_a_denial() {
    use base64::Engine as _;
    let response = review(pod(), &shop());
    assert_eq!((&response["allowed"], &response["patchType"]), (&json!(true), &json!("JSONPatch")));
    let patch =
        base64::engine::general_purpose::STANDARD.decode(response["patch"].as_str().unwrap());
    let patch: Value = serde_json::from_slice(&patch.unwrap()).unwrap();
    assert_eq!(apply(&patch, &pod()), injected_pod(&pod()));

    let mut host = pod();
    host["spec"]["hostNetwork"] = true.into();
    let response = review(host, &shop());
    assert_eq!((&response["allowed"], &response["patch"]), (&json!(true), &Value::Null));
    assert!(response["warnings"][0].as_str().unwrap().contains("hostNetwork"));

    let response = review(annotated(json!({"weir.dev/opaque-ports": "http"})), &shop());
    assert_eq!(response["allowed"], false);
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.contains("metadata.annotations[weir.dev/opaque-ports]"), "{message}");

    let quiet = json!({"uid": "u-1", "allowed": true});
    assert_eq!(review(pod(), &labelled("shop", "disabled")), quiet);
    assert_eq!(review(json!({"kind": "Service"}), &shop()), quiet);
    assert_eq!(review(injected_pod(&pod()), &shop()), quiet);
    for body in ["", "{}", r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#] {
        assert!(Review::parse(body.as_bytes()).is_err(), "{body}");
    }
}

fn facts(name: &str) -> NamespaceFacts {
    NamespaceFacts { name: name.into(), ..Default::default() }
}

#[test]
fn workloads_get_a_router_in_their_template() {
    let config = InjectConfig::default();
    let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": pod()["spec"]});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"replicas": 2, "template": template},
    });
    let cron = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"},
        "spec": {"jobTemplate": {"spec": {"template": template}}},
    });
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [deployment, service, cron]});
    let done = inject_object(&config, &facts, &list);
    let named: Vec<_> = done
        .injections
        .iter()
        .map(|i| (i.kind.as_str(), i.name.as_str(), i.namespace.as_str()))
        .collect();
    assert_eq!(named, [("Deployment", "web", "shop"), ("CronJob", "nightly", "")]);
    let items = &done.object["items"];
    assert_eq!(items[1], service);
    assert_eq!(items[0]["spec"]["replicas"], 2);
    let of = |template: &Value| variable(template, "WEIR_SERVICE").unwrap();
    assert_eq!(of(&items[0]["spec"]["template"]), "web.$(WEIR_NAMESPACE)");
    assert_eq!(
        of(&items[2]["spec"]["jobTemplate"]["spec"]["template"]),
        "nightly.$(WEIR_NAMESPACE)"
    );

    let pods =
        json!({"kind": "PodList", "items": [{"metadata": {"name": "p"}, "spec": pod()["spec"]}]});
    let done = inject_object(&config, &facts, &pods);
    assert!(matches!(done.injections[0].outcome, Ok(Outcome::Injected(_))));
    assert_eq!(done.object["items"][0]["kind"], Value::Null);

    let mut wrong = deployment.clone();
    wrong["spec"]["template"]["metadata"]["annotations"] = json!({"weir.dev/redirect": "x"});
    let done = inject_object(&config, &facts, &wrong);
    let error = done.injections[0].outcome.clone().unwrap_err().to_string();
    assert!(
        error.starts_with("spec.template.metadata.annotations[weir.dev/redirect]: "),
        "{error}"
    );
    assert_eq!(done.object, wrong);
    let empty = json!({"kind": "Job", "metadata": {"name": "j"}, "spec": {}});
    let error = inject_object(&config, &facts, &empty).injections[0].outcome.clone().unwrap_err();
    assert_eq!(error.to_string(), "spec.template: is missing");
}
