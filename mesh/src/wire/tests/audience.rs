use weir_proto::weir::mesh::v1 as pb;

use super::products;
use crate::model::AudienceBy;
use crate::wire::service;

fn headers(pairs: &[(&str, &str)], version: &str) -> pb::Audience {
    let headers = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let by = pb::audience::By::Headers(pb::HeaderAudience { headers });
    pb::Audience { by: Some(by), version: version.into() }
}

fn claim(name: &str, values: &[&str], version: &str) -> pb::Audience {
    let values = values.iter().map(ToString::to_string).collect();
    let by = pb::audience::By::Claim(pb::ClaimAudience { name: name.into(), values });
    pb::Audience { by: Some(by), version: version.into() }
}

fn mirror(version: &str, per_million: u32) -> pb::VersionMirror {
    pb::VersionMirror { version: version.into(), per_million }
}

#[test]
fn audiences_and_mirror_go_there_and_back() {
    let message = pb::Service {
        audiences: vec![
            headers(&[("x-beta", "yes"), ("x-country", "at")], "v2"),
            claim("realm.roles", &["tester", "admin"], "v2"),
        ],
        mirror: Some(mirror("v2", 10_000)),
        managed_by: "flux".into(),
        ..products()
    };
    let model = service(&message, "").unwrap();
    assert_eq!(pb::Service::from(&model), message);
    let AudienceBy::Claim { path, .. } = &model.audiences[1].by else { panic!("no claim") };
    assert_eq!(path.iter().map(|part| &**part).collect::<Vec<_>>(), ["realm", "roles"]);
}

#[test]
fn each_mistake_of_an_audience_is_named_by_its_path() {
    let message = pb::Service {
        audiences: vec![
            headers(&[("x-beta", "yes")], "v3"),
            headers(&[], "v2"),
            headers(&[("x beta", "yes"), ("x-line", "a\nb")], "v2"),
            claim("a..b", &["x"], "v2"),
            claim("group", &[], "v2"),
            pb::Audience { by: None, version: "v2".into() },
        ],
        mirror: Some(mirror("v3", 0)),
        managed_by: "two words".into(),
        ..products()
    };
    let error = service(&message, "s").unwrap_err();
    let fields: Vec<_> = error.0.iter().map(|violation| violation.field.as_str()).collect();
    let wanted = [
        "s.audiences[0].version",
        "s.audiences[1].headers",
        "s.audiences[2].headers.x beta",
        "s.audiences[2].headers.x-line",
        "s.audiences[3].claim.name",
        "s.audiences[4].claim.values",
        "s.audiences[5]",
        "s.mirror.version",
        "s.mirror.perMillion",
        "s.managedBy",
    ];
    assert_eq!(fields, wanted, "{error}");
}

#[test]
fn what_is_too_much_is_refused() {
    let many = pb::Service { audiences: vec![headers(&[("a", "b")], "v1"); 17], ..products() };
    let error = service(&many, "").unwrap_err().to_string();
    assert_eq!(error, "audiences: has 17 audiences; at most 16");
    let over = pb::Service { mirror: Some(mirror("v1", 1_000_001)), ..products() };
    let error = service(&over, "").unwrap_err().to_string();
    assert_eq!(error, "mirror.perMillion: 1000001 is not 1 to 1000000");
}
