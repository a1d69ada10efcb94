//! Profiles in their database. It knows nothing of gRPC.

use std::collections::BTreeMap;

use weir_mesh::server::Common;
use weir_mesh::server::database::{self, Changes, Database, OpenError, Query, Row, Schema};

use crate::profile::{Change, Millis, Preferences, PreferencesError, Profile, UserId};

const SCHEMA: Schema = Schema {
    name: "users",
    sqlite: &[include_str!("../migrations/sqlite/001_profiles.sql")],
    postgres: &[include_str!("../migrations/postgres/001_profiles.sql")],
};

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such profile.
    #[error("there is no profile for this user")]
    NotFound,
    /// Another user has this email.
    #[error("another user has this email")]
    EmailTaken,
    /// The change would break a rule.
    #[error(transparent)]
    Preferences(#[from] PreferencesError),
    /// Busy for longer than we wait.
    #[error("the database is busy")]
    Busy,
    /// A row that this program would not have written.
    #[error("the profile of {0} cannot be read: {1}")]
    Corrupt(String, String),
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if database::is_taken(&error) {
            Self::EmailTaken
        } else if database::is_busy(&error) {
            Self::Busy
        } else {
            Self::Database(error)
        }
    }
}

/// The profiles that all processes of the service share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
}

impl Store {
    /// Opens the profiles that `common` names, which are made when there are none.
    pub async fn open(common: &Common) -> Result<Self, OpenError> {
        Ok(Self { database: Database::open(common, &SCHEMA).await? })
    }

    /// Tells of changes of all processes, until `stopping` completes.
    pub fn changes(&self, stopping: impl Future<Output = ()> + Send + 'static) -> Changes {
        Changes::start(&self.database, stopping)
    }

    /// Adds a profile. When there is one by its id, that one is returned.
    pub async fn create(&self, profile: &Profile) -> Result<Profile, StoreError> {
        let mut transaction = self.database.begin().await?;
        let query = Query::new(
            "INSERT INTO profiles (display_name, locale, time_zone, preferences, updated_at,
                                   user_id, email, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (user_id) DO NOTHING",
        )
        .bind(profile.display_name.as_str())
        .bind(profile.locale.as_str())
        .bind(profile.time_zone.as_str())
        .bind(json(&profile.preferences))
        .bind(profile.updated_at.unix())
        .bind(profile.id.to_string())
        .bind(profile.email.as_str())
        .bind(profile.created_at.unix());
        if transaction.run(query).await? == 0 {
            let there = transaction.one(select(&profile.id)).await?;
            return there.as_ref().map_or(Err(StoreError::NotFound), read);
        }
        transaction.announce().await?;
        transaction.commit().await?;
        Ok(profile.clone())
    }

    /// One profile.
    pub async fn get(&self, id: &UserId) -> Result<Profile, StoreError> {
        let row = self.database.one(select(id)).await?;
        row.as_ref().map_or(Err(StoreError::NotFound), read)
    }

    /// Changes one profile; changes of one profile come one after the other.
    pub async fn update(&self, id: &UserId, change: Change) -> Result<Profile, StoreError> {
        let mut transaction = self.database.begin().await?;
        let row = transaction.one(select(id).postgres(" FOR UPDATE")).await?;
        let mut profile = row.as_ref().map_or(Err(StoreError::NotFound), read)?;
        if !profile.apply(change)? {
            return Ok(profile);
        }
        let query = Query::new(
            "UPDATE profiles SET display_name = $1, locale = $2, time_zone = $3, preferences = $4,
                                 updated_at = $5 WHERE user_id = $6",
        )
        .bind(profile.display_name.as_str())
        .bind(profile.locale.as_str())
        .bind(profile.time_zone.as_str())
        .bind(json(&profile.preferences))
        .bind(profile.updated_at.unix())
        .bind(id.to_string());
        transaction.run(query).await?;
        transaction.announce().await?;
        transaction.commit().await?;
        Ok(profile)
    }
}

fn select(id: &UserId) -> Query {
    Query::new("SELECT * FROM profiles WHERE user_id = $1").bind(id.to_string())
}

fn read(row: &Row) -> Result<Profile, StoreError> {
    let id: String = row.get("user_id")?;
    let corrupt = |why: &dyn std::fmt::Display| StoreError::Corrupt(id.clone(), why.to_string());
    let text = |column| row.get::<String>(column);
    let entries: BTreeMap<String, String> =
        serde_json::from_str(&text("preferences")?).map_err(|e| corrupt(&e))?;
    Ok(Profile {
        id: id.parse().map_err(|e| corrupt(&e))?,
        email: text("email")?.try_into().map_err(|e| corrupt(&e))?,
        display_name: text("display_name")?.try_into().map_err(|e| corrupt(&e))?,
        locale: text("locale")?.try_into().map_err(|e| corrupt(&e))?,
        time_zone: text("time_zone")?.try_into().map_err(|e| corrupt(&e))?,
        preferences: Preferences::new(entries).map_err(|e| corrupt(&e))?,
        created_at: Millis::from_unix(row.get("created_at")?),
        updated_at: Millis::from_unix(row.get("updated_at")?),
    })
}

fn json(preferences: &Preferences) -> String {
    let object = preferences.iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
    serde_json::Value::Object(object).to_string()
}
