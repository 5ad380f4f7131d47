//! A Secret Service (freedesktop.org) on the session bus.
//!
//! Secrets are sent unencrypted ("plain"): only the user can access the bus socket, and any process that can listen
//! there can also ask for the secrets. Each operation has its own connection.

use std::{collections::HashMap, ffi::OsString};

use zbus::{
    Connection, DynamicType, ObjectPath, OwnedObjectPath, OwnedVariant, Variant, connection, fdo, message::Message,
};

use super::{APPLICATION, KeychainFailure};

const SERVICE: &str = "org.freedesktop.secrets";
const PATH: &str = "/org/freedesktop/secrets";
const SERVICE_INTERFACE: &str = "org.freedesktop.Secret.Service";
const COLLECTION: &str = "org.freedesktop.Secret.Collection";
const ITEM: &str = "org.freedesktop.Secret.Item";
/// The object path that means "no object".
const NOTHING: &str = "/";

/// A secret on the bus: session, encryption parameters, value and content type.
type BusSecret = (OwnedObjectPath, Vec<u8>, Vec<u8>, String);

#[derive(Debug)]
pub(super) struct SystemKeychain {
    /// The address of the session bus.
    pub(super) bus: String,
}

impl SystemKeychain {
    /// Finds the session bus. Clients often start the bridge with few variables, so this falls back to the path that
    /// systemd uses.
    #[expect(clippy::unnecessary_wraps, reason = "builds without keychains return `None`")]
    pub(super) fn of_user(environment: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let text = |name| environment(name)?.into_string().ok().filter(|text| !text.is_empty());
        let folder =
            || text("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{}", rustix::process::geteuid().as_raw()));
        let bus = text("DBUS_SESSION_BUS_ADDRESS").unwrap_or_else(|| format!("unix:path={}/bus", folder()));
        Some(Self { bus })
    }

    pub(super) async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, KeychainFailure> {
        Ok(Service::connect(&self.bus).await?.secrets(&named(name)).await?.pop())
    }

    pub(super) async fn all(&self) -> Result<Vec<Vec<u8>>, KeychainFailure> {
        Service::connect(&self.bus).await?.secrets(&HashMap::from([("application", APPLICATION)])).await
    }

    pub(super) async fn set(&self, name: &str, label: &str, secret: &[u8]) -> Result<(), KeychainFailure> {
        Service::connect(&self.bus).await?.create(&named(name), label, secret).await
    }

    pub(super) async fn remove(&self, name: &str) -> Result<(), KeychainFailure> {
        let service = Service::connect(&self.bus).await?;
        for item in service.items(&named(name)).await? {
            let prompt: OwnedObjectPath = service.call(&item, ITEM, "Delete", &()).await?.body().deserialize()?;
            done(&prompt)?;
        }
        Ok(())
    }
}

/// The attributes that identify a record.
fn named(name: &str) -> HashMap<&str, &str> {
    HashMap::from([("application", APPLICATION), ("record", name)])
}

/// Succeeds if the operation needs no prompt, which would ask the user.
fn done(prompt: &OwnedObjectPath) -> Result<(), KeychainFailure> {
    if prompt.as_str() == NOTHING {
        Ok(())
    } else {
        Err(KeychainFailure::Refused("it needs to prompt the user".into()))
    }
}

/// The service, on its own connection.
struct Service(Connection);

impl Service {
    async fn connect(bus: &str) -> Result<Self, KeychainFailure> {
        let connected = connection::Builder::address(bus).build().await;
        connected.map(Self).map_err(|error| KeychainFailure::Absent(error.into()))
    }

    async fn call<B>(
        &self,
        path: &ObjectPath<'_>,
        interface: &str,
        method: &str,
        body: &B,
    ) -> Result<Message, KeychainFailure>
    where
        B: serde::Serialize + DynamicType,
    {
        Ok(self.0.call_method(Some(SERVICE), path, Some(interface), method, body).await?)
    }

    async fn call_service<B>(&self, method: &str, body: &B) -> Result<Message, KeychainFailure>
    where
        B: serde::Serialize + DynamicType,
    {
        self.call(&ObjectPath::from_static_str(PATH)?, SERVICE_INTERFACE, method, body).await
    }

    /// Opens a session for unencrypted secrets.
    async fn session(&self) -> Result<OwnedObjectPath, KeychainFailure> {
        let opened = self.call_service("OpenSession", &("plain", Variant::from(""))).await?;
        let (_, session): (OwnedVariant, OwnedObjectPath) = opened.body().deserialize()?;
        Ok(session)
    }

    async fn items(&self, attributes: &HashMap<&str, &str>) -> Result<Vec<OwnedObjectPath>, KeychainFailure> {
        let found = self.call_service("SearchItems", attributes).await?;
        let (unlocked, locked): (Vec<OwnedObjectPath>, Vec<OwnedObjectPath>) = found.body().deserialize()?;
        if locked.is_empty() { Ok(unlocked) } else { Err(KeychainFailure::Locked) }
    }

    async fn secrets(&self, attributes: &HashMap<&str, &str>) -> Result<Vec<Vec<u8>>, KeychainFailure> {
        let items = self.items(attributes).await?;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let session = self.session().await?;
        let secrets = self.call_service("GetSecrets", &(items, session)).await?;
        let secrets: HashMap<OwnedObjectPath, BusSecret> = secrets.body().deserialize()?;
        Ok(secrets.into_values().map(|(_, _, secret, _)| secret).collect())
    }

    async fn create(
        &self,
        attributes: &HashMap<&str, &str>,
        label: &str,
        secret: &[u8],
    ) -> Result<(), KeychainFailure> {
        let collection = self.call_service("ReadAlias", &"default").await?;
        let collection: OwnedObjectPath = collection.body().deserialize()?;
        if collection.as_str() == NOTHING {
            return Err(KeychainFailure::Absent("there is no default keyring".into()));
        }
        let properties = HashMap::from([
            ("org.freedesktop.Secret.Item.Label", Variant::from(label)),
            ("org.freedesktop.Secret.Item.Attributes", Variant::from(attributes.clone())),
        ]);
        let secret = (self.session().await?, [0_u8; 0].as_slice(), secret, "application/json");
        let replace = true;
        let created = self.call(&collection, COLLECTION, "CreateItem", &(properties, secret, replace)).await?;
        let (_, prompt): (OwnedObjectPath, OwnedObjectPath) = created.body().deserialize()?;
        done(&prompt)
    }
}

impl From<zbus::Error> for KeychainFailure {
    fn from(error: zbus::Error) -> Self {
        const LOCKED: &str = "org.freedesktop.Secret.Error.IsLocked";
        match &error {
            zbus::Error::MethodError(name, ..) if name.as_str() == LOCKED => Self::Locked,
            zbus::Error::FDO(refusal) if matches!(**refusal, fdo::Error::ServiceUnknown(_)) => {
                Self::Absent(error.into())
            }
            _ => Self::Refused(error.into()),
        }
    }
}
