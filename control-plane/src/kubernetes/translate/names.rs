//! What objects are called in the mesh.

use std::sync::Arc;

use weir_mesh::model::VersionName;

/// `name.namespace`, and what tells it from other kinds. An object's name may be
/// longer here than a name in the mesh: then a part of its digest stands for it.
pub(super) fn full_name(namespace: &str, name: &str, kind: &str) -> Arc<str> {
    let joined = |name: &str| match kind {
        "" => format!("{name}.{namespace}"),
        kind => format!("{name}.{namespace}.{kind}"),
    };
    let full = joined(name);
    if is_name(&full) {
        return full.into();
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, full.as_bytes());
    let short: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let shortened = joined(&format!("long-{short}"));
    if is_name(&shortened) { shortened.into() } else { format!("long-{short}").into() }
}

fn is_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(|label| label.parse::<VersionName>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_an_object_is_called_it_has_a_name() {
        assert_eq!(&*full_name("shop", "web", ""), "web.shop");
        assert_eq!(&*full_name("shop", "a.web", "grpc"), "a.web.shop.grpc");
        let long = full_name("shop", &"a".repeat(100), "");
        assert!(long.starts_with("long-") && long.ends_with(".shop"), "{long}");
        assert_ne!(long, full_name("shop", &"b".repeat(100), ""));
        for odd in ["", "A", "a..b", "ä"] {
            assert!(is_name(&full_name(odd, "web", "")) && is_name(&full_name("shop", odd, "")));
        }
    }
}
