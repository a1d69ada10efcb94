use super::*;

const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

#[test]
fn all_that_there_can_be_is_read() {
    let text = format!(
        "tokens:\n- {{name: ci, sha256: {HASH}, role: shifter, services: [products, users.shop]}}\n\
         certificates:\n- {{commonName: admin, name: root, role: admin}}\n\
         serviceAccounts:\n- {{namespace: shop, name: ci, role: viewer}}\n\
         oidc:\n  issuer: https://id.example\n  audience: weir\n  claims:\n    roles:\n\
         \x20   - {{claim: groups, value: sre, role: operator}}\n"
    );
    let grants = parse(&text).unwrap();
    assert_eq!(grants.tokens[0].grant.services.as_deref().unwrap(), ["products", "users.shop"]);
    assert_eq!(grants.certificates[0].grant.name, "root");
    assert_eq!(grants.service_accounts[0].username, "system:serviceaccount:shop:ci");
    let oidc = grants.oidc.unwrap();
    assert_eq!((oidc.name.as_str(), oidc.prefix.as_str()), ("sub", "oidc:"));
    assert_eq!(parse("# nothing\n").unwrap(), Grants::default());
    assert_eq!(parse("{\"tokens\": []}").unwrap(), Grants::default());
}

#[test]
fn everything_that_is_wrong_is_told_by_path_and_line() {
    let text = format!(
        "tokens:\n\
         - name: ci\n\
         \x20 sha256: the-token-itself-by-mistake\n\
         \x20 role: king\n\
         - {{name: admin, role: viewer}}\n\
         - {{name: ci, sha256: {HASH}, role: viewer, services: [a]}}\n\
         - {{name: x, sha256: {HASH}, role: shifter, services: [], expires: soon}}\n\
         certificates:\n\
         - {{role: viewer}}\n\
         - {{spiffeId: nobody, commonName: b, role: viewer}}\n\
         - {{spiffeId: nobody, role: viewer}}\n\
         oidc:\n\
         \x20 issuer: http://id.example\n\
         \x20 algorithms: [none, HS256]\n"
    );
    let error = parse(&text).unwrap_err();
    for expected in [
        "tokens[0].sha256: is not the SHA-256 of a token in 64 hexadecimal digits (line 3)",
        "tokens[0].role: \"king\" is no role; use viewer, shifter, operator or admin (line 4)",
        "tokens[1].name: \"admin\" is who holds the mesh's own token; use another name (line 5)",
        "tokens[1].sha256: is missing; `weir access token NAME` makes a token",
        "tokens[2].services: only a shifter has them, not a viewer (line 6)",
        "tokens[3].services: is empty;",
        "tokens[3].expires: is no moment in UTC",
        "certificates[0]: name one of spiffeId, commonName and fingerprint (line 9)",
        "certificates[1]: name one of",
        "certificates[2].spiffeId: \"nobody\" does not begin with",
        "oidc.issuer: must be https",
        "oidc.audience: is missing;",
        "oidc.algorithms[0]: \"none\" is no signature",
        "oidc.algorithms[1]: HS256 needs a secret",
        "oidc.claims.roles: is empty;",
    ] {
        assert!(error.contains(expected), "{expected}\n{error}");
    }
    assert!(!error.contains("by-mistake"), "{error}");
    let error = parse("tokens:\n- {nmae: x}\n").unwrap_err();
    assert!(error.contains("nmae") && error.contains("line 2"), "{error}");
    let error = parse("tokens: [{sha256: [the-secret]}]").unwrap_err();
    assert!(!error.contains("the-secret"), "{error}");
}
