//! The services that auth calls, through the mesh.

use tonic::{Code, Status};
use weir_mesh::server::{InvalidService, Outbound, OutboundChannel};
use weir_proto::weir::notifications::v1 as notifications;
use weir_proto::weir::notifications::v1::notifications_service_client::NotificationsServiceClient;
use weir_proto::weir::users::v1 as users;
use weir_proto::weir::users::v1::users_service_client::UsersServiceClient;

use crate::account::{DisplayName, Email, UserId};
use crate::store::Welcoming;

/// Their clients. Clones share the connections.
#[derive(Clone)]
pub struct Peers {
    users: UsersServiceClient<OutboundChannel>,
    notifications: NotificationsServiceClient<OutboundChannel>,
}

/// What the users service made of a new profile.
pub enum Created {
    Yes,
    /// Another user's profile has the email.
    EmailTaken,
    /// It did not: later it may.
    Failed(Status),
}

impl Peers {
    pub fn new(outbound: &Outbound) -> Result<Self, InvalidService> {
        Ok(Self {
            users: UsersServiceClient::new(outbound.channel("users")?),
            notifications: NotificationsServiceClient::new(outbound.channel("notifications")?),
        })
    }

    /// May be repeated.
    pub async fn create_user(&self, id: UserId, email: &Email, name: &DisplayName) -> Created {
        let request = users::CreateUserRequest {
            user_id: id.to_string(),
            email: email.as_str().to_owned(),
            display_name: name.as_str().to_owned(),
        };
        match self.users.clone().create_user(request).await {
            Ok(_) => Created::Yes,
            Err(status) if status.code() == Code::AlreadyExists => Created::EmailTaken,
            Err(status) => Created::Failed(status),
        }
    }

    /// May be repeated.
    pub async fn welcome(&self, welcoming: &Welcoming) -> Result<(), Status> {
        let request = notifications::EnqueueRequest {
            user_id: welcoming.user_id.clone(),
            kind: "welcome".to_owned(),
            title: format!("Welcome, {}", welcoming.display_name),
            body: "Your account is ready.".to_owned(),
            idempotency_key: welcoming.idempotency_key.clone(),
            webhook_url: String::new(),
        };
        self.notifications.clone().enqueue(request).await.map(drop)
    }
}
