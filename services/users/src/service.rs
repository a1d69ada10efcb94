//! The door: wire messages in, calls of the store, wire messages out.

mod watch;
mod wire;

use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use weir_mesh::identity::SpiffeId;
use weir_mesh::jwt::{Claims, Verifier};
use weir_mesh::server;
use weir_mesh::server::database::Changes;
use weir_proto::weir::users::v1 as pb;

use crate::profile::{Profile, UserId};
use crate::store::{Store, StoreError};

pub use watch::ProfileStream;

/// Who may create users.
#[derive(Debug, Clone)]
pub enum Creators {
    /// The one with this identity.
    Only(SpiffeId),
    /// Anyone, even without an identity.
    Anyone,
}

/// `weir.users.v1.UsersService`.
pub struct Users {
    store: Store,
    verifier: Verifier,
    creators: Creators,
    changes: Changes,
    watchers: watch::Places,
    with_avatar: bool,
}

impl Users {
    pub fn new(
        store: Store,
        verifier: Verifier,
        creators: Creators,
        changes: Changes,
        with_avatar: bool,
    ) -> Self {
        Self { store, verifier, creators, changes, watchers: watch::Places::new(), with_avatar }
    }

    /// The user that the access token names.
    async fn user(&self, metadata: &MetadataMap) -> Result<(UserId, Claims), Status> {
        let claims = self.verifier.user(metadata).await?;
        let id = claims
            .sub
            .parse()
            .map_err(|_| Status::unauthenticated("the access token's subject is not a user id"))?;
        Ok((id, claims))
    }

    fn may_create(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let Creators::Only(allowed) = &self.creators else { return Ok(()) };
        match server::peer(metadata) {
            Some(peer) if peer == *allowed => Ok(()),
            Some(peer) => Err(Status::permission_denied(format!(
                "{peer} may not create users: only {allowed} may"
            ))),
            None => Err(Status::permission_denied(
                "the caller has no identity: only the auth service may create users, through the mesh",
            )),
        }
    }

    fn answer(&self, profile: Profile) -> Response<pb::Profile> {
        Response::new(wire::profile(profile, self.with_avatar))
    }
}

#[tonic::async_trait]
impl pb::users_service_server::UsersService for Users {
    async fn create_user(
        &self,
        request: Request<pb::CreateUserRequest>,
    ) -> Result<Response<pb::Profile>, Status> {
        self.may_create(request.metadata())?;
        let profile = wire::new_profile(request.into_inner())?;
        let profile = self.store.create(&profile).await?;
        self.changes.note();
        Ok(self.answer(profile))
    }

    async fn get_me(
        &self,
        request: Request<pb::GetMeRequest>,
    ) -> Result<Response<pb::Profile>, Status> {
        let (id, _) = self.user(request.metadata()).await?;
        Ok(self.answer(self.store.get(&id).await?))
    }

    async fn update_me(
        &self,
        request: Request<pb::UpdateMeRequest>,
    ) -> Result<Response<pb::Profile>, Status> {
        let (id, _) = self.user(request.metadata()).await?;
        let change = wire::change(request.into_inner())?;
        let profile = self.store.update(&id, change).await?;
        self.changes.note();
        Ok(self.answer(profile))
    }

    async fn get_user(
        &self,
        request: Request<pb::GetUserRequest>,
    ) -> Result<Response<pb::Profile>, Status> {
        let (id, _) = self.user(request.metadata()).await?;
        let wanted = wire::user_id(&request.get_ref().user_id)?;
        if wanted != id {
            // Said before looking: whether the other user exists is not told.
            return Err(Status::permission_denied("a user may only see their own profile"));
        }
        Ok(self.answer(self.store.get(&id).await?))
    }

    async fn check_active(
        &self,
        request: Request<pb::CheckActiveRequest>,
    ) -> Result<Response<pb::CheckActiveResponse>, Status> {
        // The gateway adds it to all that comes from outside, and only to that.
        if request.metadata().contains_key("x-forwarded-for") {
            let why = "whether a user exists is told to the mesh's own routers only";
            return Err(Status::permission_denied(why));
        }
        let active = match wire::user_id(&request.get_ref().user_id) {
            Err(_) => false,
            Ok(id) => match self.store.get(&id).await {
                Ok(_) => true,
                Err(StoreError::NotFound) => false,
                Err(error) => return Err(error.into()),
            },
        };
        Ok(Response::new(pb::CheckActiveResponse { active }))
    }

    type WatchMeStream = ProfileStream;

    async fn watch_me(
        &self,
        request: Request<pb::WatchMeRequest>,
    ) -> Result<Response<ProfileStream>, Status> {
        let (id, claims) = self.user(request.metadata()).await?;
        let place = self.watchers.take()?;
        // Subscribed before the first look, so that nothing falls in between.
        let changes = self.changes.subscribe();
        let first = self.store.get(&id).await?;
        let store = self.store.clone();
        let watch = watch::Watch::new(store, changes, first, claims.exp, place, self.with_avatar);
        Ok(Response::new(watch.stream()))
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::not_found(error.to_string()),
            StoreError::EmailTaken => Self::already_exists(error.to_string()),
            StoreError::Busy => Self::unavailable("the users service is busy: try again"),
            StoreError::Preferences(why) => {
                let mut bad = server::BadRequest::new();
                bad.field("preferences", why);
                bad.into()
            }
            StoreError::Corrupt(..) | StoreError::Database(_) => {
                // What the database says may hold a user's data.
                tracing::error!(%error, "a request failed in the store");
                Self::internal("the users service could not read or write its data")
            }
        }
    }
}
