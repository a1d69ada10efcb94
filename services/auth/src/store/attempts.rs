//! Failed logins, and how long the next one has to wait.

use std::time::Duration;

use weir_mesh::server::database::Query;

use super::{FORGET_FAILURES, Store, StoreError};
use crate::account::{Email, Millis};

/// So many failures cost nothing.
const FREE: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// Whether a login may be tried.
#[derive(Debug, PartialEq, Eq)]
pub enum Allowed {
    Now,
    After(Duration),
}

/// How long to wait after so many failures in a row: doubles from the fifth on.
fn wait(failures: u32) -> Duration {
    match failures.checked_sub(FREE) {
        None => Duration::ZERO,
        Some(more) => FIRST_WAIT.saturating_mul(1 << more.min(20)).min(LONGEST_WAIT),
    }
}

impl Store {
    /// Whether a login of this email may be tried now.
    pub async fn may_log_in(&self, email: &Email, now: Millis) -> Result<Allowed, StoreError> {
        let query = Query::new("SELECT blocked_until FROM failed_logins WHERE email = $1")
            .bind(email.as_str());
        let row = self.database.one(query).await?;
        let until: Option<i64> = row.map(|row| row.at(0)).transpose()?;
        let left = until.map_or(Duration::ZERO, |until| Millis(until).since(now));
        if left.is_zero() { Ok(Allowed::Now) } else { Ok(Allowed::After(left)) }
    }

    /// Notes a failed login, of an account or of an email that has none.
    pub async fn login_failed(&self, email: &Email, now: Millis) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        // There must be a row before it can be locked: else two at once would
        // count as one.
        let query = Query::new(
            "INSERT INTO failed_logins (email, failures, last_at, blocked_until)
             VALUES ($1, 0, $2, 0) ON CONFLICT DO NOTHING",
        );
        transaction.run(query.bind(email.as_str()).bind(now.0)).await?;
        let query = Query::new("SELECT failures, last_at FROM failed_logins WHERE email = $1")
            .bind(email.as_str())
            .postgres(" FOR UPDATE");
        let before: i64 = match transaction.one(query).await? {
            Some(row) if now.since(Millis(row.at(1)?)) < FORGET_FAILURES => row.at(0)?,
            _ => 0,
        };
        let failures = 1_u32.saturating_add(u32::try_from(before).unwrap_or(u32::MAX));
        // What costs nothing must not stop one that has looked at its clock before.
        let wait = wait(failures);
        let blocked_until = if wait.is_zero() { 0 } else { (now + wait).0 };
        let query = Query::new(
            "INSERT INTO failed_logins (email, failures, last_at, blocked_until)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (email) DO UPDATE SET failures = excluded.failures,
                 last_at = excluded.last_at, blocked_until = excluded.blocked_until",
        )
        .bind(email.as_str())
        .bind(failures)
        .bind(now.0)
        .bind(blocked_until);
        transaction.run(query).await?;
        Ok(transaction.commit().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_the_fifth_failure_on_and_stay_bounded() {
        assert_eq!(wait(4), Duration::ZERO);
        assert_eq!(wait(5), Duration::from_secs(1));
        assert_eq!(wait(6), Duration::from_secs(2));
        assert_eq!(wait(8), Duration::from_secs(8));
        assert_eq!(wait(15), LONGEST_WAIT);
        assert_eq!(wait(u32::MAX), LONGEST_WAIT);
    }
}
