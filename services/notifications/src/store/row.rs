//! Row to notification.

use weir_mesh::server::database::Row;

use crate::notification::{Draft, FieldError, Notification, NotificationId};
use crate::webhook::WebhookUrl;

/// Reads a row of `notifications`, whole.
pub(super) fn notification(row: &Row) -> Result<Notification, sqlx::Error> {
    let webhook = row
        .get::<Option<String>>("webhook_url")?
        .map(|url| WebhookUrl::try_from(url.as_str()))
        .transpose()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let id = NotificationId::try_from(row.get::<String>("id")?.as_str());
    Ok(Notification {
        id: id.map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        sequence: row.get("sequence")?,
        draft: Draft {
            user: field(row, "user")?,
            kind: field(row, "kind")?,
            title: field(row, "title")?,
            body: field(row, "body")?,
            webhook,
        },
        create_time: row.get("create_time")?,
        read_time: row.get("read_time")?,
    })
}

/// How many attempts were begun.
pub(super) fn attempts(row: &Row) -> Result<u32, sqlx::Error> {
    u32::try_from(row.get::<i64>("attempts")?).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn field<T: TryFrom<String, Error = FieldError>>(row: &Row, name: &str) -> Result<T, sqlx::Error> {
    // It fails only when somebody else wrote the row.
    T::try_from(row.get(name)?).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
