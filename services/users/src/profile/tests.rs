use super::*;

fn profile() -> Profile {
    let id = "01938a5e-7f2c-7c3d-9b1a-2f4e6d8c0a1b".parse().unwrap();
    let email = Email::try_from("ada@example.com".to_owned()).unwrap();
    Profile::new(id, email, DisplayName::try_from(" Ada ".to_owned()).unwrap())
}

fn preferences(entries: &[(&str, &str)]) -> Preferences {
    Preferences::new(entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))).unwrap()
}

#[test]
fn texts_keep_to_their_rules() {
    for good in ["en", "pt-BR", "zh-Hant-TW", "de-DE-1996"] {
        assert!(Locale::try_from(good.to_owned()).is_ok(), "{good}");
    }
    for bad in ["", "e", "en_US", "en-", "-US", "en-toolongsubtag", "12"] {
        assert!(Locale::try_from(bad.to_owned()).is_err(), "{bad}");
    }
    for good in ["UTC", "Europe/Lisbon", "America/Argentina/Buenos_Aires", "Etc/GMT+3"] {
        assert!(TimeZone::try_from(good.to_owned()).is_ok(), "{good}");
    }
    for bad in ["", "/etc/passwd", "Europe/", "../x", "a/b/c/d", "+01:00", "Europe/Lis bon"] {
        assert!(TimeZone::try_from(bad.to_owned()).is_err(), "{bad}");
    }
    assert_eq!(profile().display_name.as_str(), "Ada");
    assert_eq!(DisplayName::try_from("a\nb".to_owned()), Err(TextError::Control));
    assert_eq!(DisplayName::try_from("é".repeat(81)), Err(TextError::Long { found: 81, most: 80 }));
}

#[test]
fn merging_adds_replaces_and_removes() {
    let before = preferences(&[("theme", "dark"), ("beta", "on")]);
    let after =
        before.merge(preferences(&[("theme", "light"), ("beta", ""), ("font", "12")])).unwrap();
    assert_eq!(after, preferences(&[("theme", "light"), ("font", "12")]));
}

#[test]
fn a_merge_that_is_too_much_changes_nothing() {
    let many = |prefix: &str| {
        Preferences::new((0..40).map(|n| (format!("{prefix}{n}"), "x".to_owned()))).unwrap()
    };
    let mut profile = profile();
    let change = |p| Change { preferences: Some(PreferencesChange::Merge(p)), ..Change::default() };
    assert!(profile.apply(change(many("a"))).unwrap());
    let before = profile.clone();
    assert_eq!(profile.apply(change(many("b"))), Err(PreferencesError::Many(80)));
    assert_eq!(profile, before);
}

#[test]
fn a_change_is_always_later_than_what_it_changes() {
    let mut profile = profile();
    profile.updated_at = Millis::from_unix(i64::MAX / 2);
    let before = profile.updated_at;
    let name = DisplayName::try_from("Grace".to_owned()).unwrap();
    let change = Change { display_name: Some(name), ..Change::default() };
    assert!(profile.apply(change.clone()).unwrap());
    assert!(profile.updated_at > before);
    assert!(!profile.apply(change).unwrap(), "the same again is no change");
}
