//! Accounts: first reserved, then active.

use weir_mesh::server::database::Query;

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
        let query = Query::new(
            "INSERT INTO accounts (email, user_id, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(email.as_str())
        .bind(UserId::new().to_string())
        .bind(Millis::now().0);
        transaction.run(query).await?;
        let query =
            Query::new("SELECT user_id, password_hash IS NOT NULL FROM accounts WHERE email = $1")
                .bind(email.as_str());
        let row = transaction.one(query).await?.ok_or(StoreError::Corrupt("accounts"))?;
        transaction.commit().await?;
        if row.at(1)? {
            Ok(Reserved::Taken)
        } else {
            Ok(Reserved::As(user_id(&row.at::<String>(0)?)?))
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
        let query = Query::new(
            "UPDATE accounts SET password_hash = $1 WHERE user_id = $2 AND password_hash IS NULL",
        )
        .bind(password_hash)
        .bind(session.user.to_string());
        if transaction.run(query).await? == 0 {
            return Ok(false);
        }
        session.insert(&mut transaction).await?;
        welcoming.insert(&mut transaction).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The active account of this email.
    pub async fn account(&self, email: &Email) -> Result<Option<Account>, StoreError> {
        let query = Query::new(
            "SELECT user_id, password_hash FROM accounts WHERE email = $1 AND password_hash IS NOT NULL",
        )
        .bind(email.as_str());
        let row = self.database.one(query).await?;
        row.map(|row| {
            let id = user_id(&row.at::<String>(0)?)?;
            Ok(Account { id, password_hash: row.at(1)? })
        })
        .transpose()
    }
}

pub(super) fn user_id(text: &str) -> Result<UserId, StoreError> {
    text.parse().map(UserId).map_err(|_| StoreError::Corrupt("accounts"))
}
