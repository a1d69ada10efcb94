//! Row to notification.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::notification::{Draft, FieldError, Notification, NotificationId};
use crate::webhook::WebhookUrl;

/// Reads a row of `notifications`, whole.
pub(super) fn notification(row: &SqliteRow) -> Result<Notification, sqlx::Error> {
    let webhook = row
        .try_get::<Option<&str>, _>("webhook_url")?
        .map(WebhookUrl::try_from)
        .transpose()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let id = NotificationId::try_from(row.try_get::<&str, _>("id")?);
    Ok(Notification {
        id: id.map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        sequence: row.try_get("sequence")?,
        draft: Draft {
            user: field(row, "user")?,
            kind: field(row, "kind")?,
            title: field(row, "title")?,
            body: field(row, "body")?,
            webhook,
        },
        create_time: row.try_get("create_time")?,
        read_time: row.try_get("read_time")?,
    })
}

fn field<T: TryFrom<String, Error = FieldError>>(
    row: &SqliteRow,
    name: &str,
) -> Result<T, sqlx::Error> {
    // It fails only when somebody else wrote the row.
    T::try_from(row.try_get(name)?).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
