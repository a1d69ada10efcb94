//! Accounts: first reserved, then active.

use sqlx::Row as _;

use super::{NewSession, Store, StoreError, Welcoming};
use crate::account::{Email, Millis, UserId};

/// What became of a reservation.
#[derive(Debug, PartialEq, Eq)]
pub enum Reserved {
    /// The account is to have this id; an earlier attempt may have chosen it.
    As(UserId),
    /// Someone has an account by this email.
    Taken,
}

/// An active account.
#[derive(Debug)]
pub struct Account {
    pub id: UserId,
    pub password_hash: String,
}

impl Store {
    /// Chooses the id that an account is going to have. Until it is activated
    /// anyone may reserve it again, and gets the same id: that makes
    /// everything done for it in other services repeatable.
    pub async fn reserve(&self, email: &Email) -> Result<Reserved, StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO accounts (email, user_id, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(email.as_str())
        .bind(UserId::new().to_string())
        .bind(Millis::now().0)
        .execute(&mut *transaction)
        .await?;
        let row =
            sqlx::query("SELECT user_id, password_hash IS NOT NULL FROM accounts WHERE email = ?")
                .bind(email.as_str())
                .fetch_one(&mut *transaction)
                .await?;
        transaction.commit().await?;
        if row.try_get(1)? {
            Ok(Reserved::Taken)
        } else {
            Ok(Reserved::As(user_id(&row.try_get::<String, _>(0)?)?))
        }
    }

    /// Makes a reserved account real, begins its first session and notes that
    /// its owner is to be welcomed: all of it or nothing. Says whether it did;
    /// it does not when another request was first.
    pub async fn activate(
        &self,
        password_hash: &str,
        session: &NewSession,
        welcoming: &Welcoming,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        let activated = sqlx::query(
            "UPDATE accounts SET password_hash = ? WHERE user_id = ? AND password_hash IS NULL",
        )
        .bind(password_hash)
        .bind(session.user.to_string())
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if activated == 0 {
            return Ok(false);
        }
        session.insert(&mut transaction).await?;
        welcoming.insert(&mut transaction).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The active account of this email.
    pub async fn account(&self, email: &Email) -> Result<Option<Account>, StoreError> {
        let row = sqlx::query(
            "SELECT user_id, password_hash FROM accounts WHERE email = ? AND password_hash IS NOT NULL",
        )
        .bind(email.as_str())
        .fetch_optional(&self.database.read)
        .await?;
        row.map(|row| {
            let id = user_id(&row.try_get::<String, _>(0)?)?;
            Ok(Account { id, password_hash: row.try_get(1)? })
        })
        .transpose()
    }
}

pub(super) fn user_id(text: &str) -> Result<UserId, StoreError> {
    text.parse().map(UserId).map_err(|_| StoreError::Corrupt("accounts"))
}
