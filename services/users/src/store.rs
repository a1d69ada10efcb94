//! Profiles on disk. It knows nothing of gRPC.

use std::collections::BTreeMap;
use std::path::Path;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use weir_mesh::server::sqlite::{self, Database, OpenError};

use crate::profile::{Change, Millis, Preferences, PreferencesError, Profile, UserId};

const MIGRATIONS: &[&str] = &[include_str!("store/001_profiles.sql")];

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
        if sqlite::is_taken(&error) {
            Self::EmailTaken
        } else if sqlite::is_busy(&error) {
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
    /// Opens the profiles in `directory`, which is made when there is none.
    pub async fn open(directory: &Path) -> Result<Self, OpenError> {
        Ok(Self { database: sqlite::open(directory, "users.db", MIGRATIONS).await? })
    }

    /// Adds a profile. When there is one by its id, that one is returned.
    pub async fn create(&self, profile: &Profile) -> Result<Profile, StoreError> {
        let mut transaction = self.database.write.begin_with("BEGIN IMMEDIATE").await?;
        if let Some(there) = select(&mut transaction, &profile.id).await? {
            return Ok(there);
        }
        sqlx::query(
            "INSERT INTO profiles (display_name, locale, time_zone, preferences, updated_at,
                                   user_id, email, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(profile.display_name.as_str())
        .bind(profile.locale.as_str())
        .bind(profile.time_zone.as_str())
        .bind(json(&profile.preferences))
        .bind(profile.updated_at.unix())
        .bind(profile.id.to_string())
        .bind(profile.email.as_str())
        .bind(profile.created_at.unix())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(profile.clone())
    }

    /// One profile.
    pub async fn get(&self, id: &UserId) -> Result<Profile, StoreError> {
        let mut connection = self.database.read.acquire().await?;
        select(&mut connection, id).await?.ok_or(StoreError::NotFound)
    }

    /// Changes one profile; changes of one profile come one after the other.
    pub async fn update(&self, id: &UserId, change: Change) -> Result<Profile, StoreError> {
        let mut transaction = self.database.write.begin_with("BEGIN IMMEDIATE").await?;
        let mut profile = select(&mut transaction, id).await?.ok_or(StoreError::NotFound)?;
        if !profile.apply(change)? {
            return Ok(profile);
        }
        sqlx::query(
            "UPDATE profiles SET display_name = ?, locale = ?, time_zone = ?, preferences = ?,
                                 updated_at = ? WHERE user_id = ?",
        )
        .bind(profile.display_name.as_str())
        .bind(profile.locale.as_str())
        .bind(profile.time_zone.as_str())
        .bind(json(&profile.preferences))
        .bind(profile.updated_at.unix())
        .bind(id.to_string())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(profile)
    }

    /// A number that differs from the one before when another connection, of
    /// any process, has committed since. `connection` must stay the same one.
    pub async fn data_version(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await?)
    }

    /// A connection of one's own, outside of the pool.
    pub async fn dedicated(&self) -> Result<SqliteConnection, StoreError> {
        Ok(self.database.read.acquire().await?.detach())
    }
}

async fn select(
    connection: &mut SqliteConnection,
    id: &UserId,
) -> Result<Option<Profile>, StoreError> {
    let row = sqlx::query("SELECT * FROM profiles WHERE user_id = ?")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.map(|row| profile(&row)).transpose()
}

fn profile(row: &SqliteRow) -> Result<Profile, StoreError> {
    let id: String = row.try_get("user_id")?;
    let corrupt = |why: &dyn std::fmt::Display| StoreError::Corrupt(id.clone(), why.to_string());
    let text = |column| row.try_get::<String, _>(column);
    let entries: BTreeMap<String, String> =
        serde_json::from_str(&text("preferences")?).map_err(|e| corrupt(&e))?;
    Ok(Profile {
        id: id.parse().map_err(|e| corrupt(&e))?,
        email: text("email")?.try_into().map_err(|e| corrupt(&e))?,
        display_name: text("display_name")?.try_into().map_err(|e| corrupt(&e))?,
        locale: text("locale")?.try_into().map_err(|e| corrupt(&e))?,
        time_zone: text("time_zone")?.try_into().map_err(|e| corrupt(&e))?,
        preferences: Preferences::new(entries).map_err(|e| corrupt(&e))?,
        created_at: Millis::from_unix(row.try_get("created_at")?),
        updated_at: Millis::from_unix(row.try_get("updated_at")?),
    })
}

fn json(preferences: &Preferences) -> String {
    let object = preferences.iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
    serde_json::Value::Object(object).to_string()
}
