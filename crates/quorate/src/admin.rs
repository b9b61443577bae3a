//! Members, their status, alarms, users and roles.

use crate::{
    Client, Result,
    backend::{Alarm, AuthRequest, AuthResponse, Member, Status},
};

/// Administration of the cluster. The errors are those of [`Client::get`], and what the cluster
/// refuses.
impl Client {
    /// Lists the members of the cluster.
    ///
    /// # Errors
    ///
    /// If no member answers.
    pub async fn members(&self) -> Result<Vec<Member>> {
        self.link()
            .bounded("list of members", false, self.backend().members())
            .await
    }

    /// The endpoints that this client was given.
    pub fn endpoints(&self) -> Vec<String> {
        self.backend().endpoints()
    }

    /// The status of the member that this client talks to.
    ///
    /// # Errors
    ///
    /// If no member answers.
    pub async fn status(&self) -> Result<Status> {
        self.link()
            .bounded("status", false, self.backend().status(None))
            .await
    }

    /// The status of the member at an endpoint: one of [`Client::endpoints`], or a client URL of a
    /// [`Member`].
    ///
    /// # Errors
    ///
    /// If that member does not answer.
    pub async fn status_of(&self, endpoint: impl Into<String>) -> Result<Status> {
        let endpoint = endpoint.into();
        let what = format!("status of {endpoint}");
        self.link()
            .bounded(&what, false, self.backend().status(Some(endpoint)))
            .await
    }

    /// The member that leads the cluster; `None` while there is no leader.
    ///
    /// # Errors
    ///
    /// If no member answers.
    pub async fn cluster_leader(&self) -> Result<Option<Member>> {
        let leader = self.status().await?.leader;
        Ok(self
            .members()
            .await?
            .into_iter()
            .find(|member| member.id == leader))
    }

    /// Lists the alarms that are raised.
    ///
    /// # Errors
    ///
    /// If no member answers.
    pub async fn alarms(&self) -> Result<Vec<Alarm>> {
        self.link()
            .bounded("list of alarms", false, self.backend().alarms())
            .await
    }

    /// Administers users, roles and permissions.
    ///
    /// # Errors
    ///
    /// What the cluster refuses: unknown or doubled names, missing rights.
    pub async fn auth(&self, request: AuthRequest) -> Result<AuthResponse> {
        let writes = !matches!(
            request,
            AuthRequest::Status
                | AuthRequest::UserRoles { .. }
                | AuthRequest::UserList
                | AuthRequest::RolePermissions { .. }
                | AuthRequest::RoleList
        );
        self.link()
            .bounded(
                "administration of users",
                writes,
                self.backend().auth(request),
            )
            .await
    }
}
