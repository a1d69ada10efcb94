//! Messages to types and back. Fields are called what JSON calls them.

use std::collections::HashMap;
use std::fmt::Display;

use tonic::Status;
use weir_mesh::server::BadRequest;
use weir_proto::weir::users::v1 as pb;

use crate::avatar;
use crate::profile::{Change, Millis, Preferences, PreferencesChange, Profile, UserId};

const UNPARSED: &str = "is missing";

pub fn user_id(text: &str) -> Result<UserId, Status> {
    let mut bad = BadRequest::new();
    bad.check("userId", text.parse()).ok_or_else(|| bad.into())
}

pub fn new_profile(request: pb::CreateUserRequest) -> Result<Profile, Status> {
    let mut bad = BadRequest::new();
    let id = bad.check("userId", request.user_id.parse());
    let email = bad.check("email", request.email.try_into());
    let name = bad.check("displayName", request.display_name.try_into());
    match (id, email, name) {
        (Some(id), Some(email), Some(name)) => Ok(Profile::new(id, email, name)),
        _ => Err(bad.into()),
    }
}

/// What a mask may name, as messages spell it and as JSON does.
struct Mask {
    display_name: bool,
    locale: bool,
    time_zone: bool,
    preferences: bool,
}

impl Mask {
    fn new(paths: Vec<String>, bad: &mut BadRequest) -> Self {
        let mut mask =
            Self { display_name: false, locale: false, time_zone: false, preferences: false };
        for path in paths {
            match path.as_str() {
                "*" => {
                    mask = Self {
                        display_name: true,
                        locale: true,
                        time_zone: true,
                        preferences: true,
                    };
                }
                "display_name" | "displayName" => mask.display_name = true,
                "locale" => mask.locale = true,
                "time_zone" | "timeZone" => mask.time_zone = true,
                "preferences" => mask.preferences = true,
                other => {
                    let known = "it may name displayName, locale, timeZone and preferences";
                    bad.field("updateMask", format!("names {other:?}: {known}"));
                }
            }
        }
        mask
    }
}

/// One field under a mask, or without one: `Ok(None)` leaves it as it is.
fn field<T>(
    name: &str,
    masked: Option<bool>,
    value: Option<String>,
    bad: &mut BadRequest,
) -> Option<T>
where
    T: TryFrom<String>,
    T::Error: Display,
{
    match (masked, value) {
        (Some(false), _) | (None, None) => None,
        (_, Some(value)) => bad.check(name, T::try_from(value)),
        (Some(true), None) => {
            bad.field(name, format!("{UNPARSED}, though updateMask names it"));
            None
        }
    }
}

pub fn change(request: pb::UpdateMeRequest) -> Result<Change, Status> {
    let mut bad = BadRequest::new();
    let mask = request.update_mask.map(|mask| Mask::new(mask.paths, &mut bad));
    let masked = |named: fn(&Mask) -> bool| mask.as_ref().map(named);
    let change = Change {
        display_name: field(
            "displayName",
            masked(|m| m.display_name),
            request.display_name,
            &mut bad,
        ),
        locale: field("locale", masked(|m| m.locale), request.locale, &mut bad),
        time_zone: field("timeZone", masked(|m| m.time_zone), request.time_zone, &mut bad),
        preferences: preferences(masked(|m| m.preferences), request.preferences, &mut bad),
    };
    bad.finish().map(|()| change)
}

fn preferences(
    masked: Option<bool>,
    entries: HashMap<String, String>,
    bad: &mut BadRequest,
) -> Option<PreferencesChange> {
    match masked {
        Some(false) => None,
        // An empty map is a value here: it removes all.
        Some(true) => {
            bad.check("preferences", Preferences::new(entries)).map(PreferencesChange::Replace)
        }
        None if entries.is_empty() => None,
        None => bad.check("preferences", Preferences::new(entries)).map(PreferencesChange::Merge),
    }
}

pub fn profile(profile: Profile, with_avatar: bool) -> pb::Profile {
    let time = |at: Millis| Some(std::time::SystemTime::from(at).into());
    let entries = profile.preferences.iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
    pb::Profile {
        user_id: profile.id.to_string(),
        preferences: entries.collect(),
        avatar_url: with_avatar.then(|| avatar::data_url(&profile.id)),
        email: profile.email.into(),
        display_name: profile.display_name.into(),
        locale: profile.locale.into(),
        time_zone: profile.time_zone.into(),
        created_at: time(profile.created_at),
        updated_at: time(profile.updated_at),
    }
}
