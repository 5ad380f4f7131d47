//! Signing in where a server asks for it: OAuth 2.1 as MCP has it, from a 401 to a token and beyond.
//!
//! ```text
//! refusal --challenge--> Place (rmcp: discovery) --store, lock--> kept token | refresh | grant --> Token
//!                                                    grant = browser (callback) | device | client credentials
//! ```
//!
//! A `SignIn` belongs to one bridge. It does nothing before the first refusal. Then one `Run` at a time finds a token,
//! in a task of its own: whoever needs one waits for that, at most as long as the settings say, and is told where to sign
//! in if it takes longer. Across processes it is a lock that lets one run after the other, and the later ones find what
//! the first has kept.
//!
//! Rule: a token that the server refused is not sent again, and goes to no other server.

mod answer;
mod binding;
mod callback;
mod challenge;
mod device;
mod files;
mod keychain;
mod lock;
mod register;
mod requests;
mod revoke;
mod sign_in;
mod store;

use std::{
    collections::HashSet,
    fmt,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::HeaderValue;
use oauth2::TokenResponse as _;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

pub(crate) use self::challenge::Challenge;
use self::{
    callback::Arrival,
    lock::Held,
    requests::Clients,
    sign_in::Place,
    store::{Record, Store},
};
pub use self::{keychain::Keychain, store::Kept};
use crate::{
    call::own_requests::Task,
    config::Config,
    error::{Error, Fate, Kind as Fault},
    http::ServerUrl,
    secrets::Concealed,
};

/// After a sign-in that failed, nobody is asked to sign in again for as long: each request would open another window.
const PAUSE: Duration = Duration::from_secs(30);
/// A token is renewed this long before it expires, or when four fifths of its life are over.
const AHEAD: Duration = Duration::from_mins(1);
/// A token that is refused so soon after it was renewed will not get better by that.
const YOUNG: Duration = Duration::from_secs(30);

/// How to sign in at a server that asks for it.
#[derive(Clone)]
#[non_exhaustive]
pub struct OAuth {
    /// How the user, or the client itself, signs in.
    pub grant: Grant,
    /// The client that the authorization server knows already.
    pub client_id: Option<String>,
    /// How that client proves to be it.
    pub credential: Option<Credential>,
    /// The authorization server that may be used, to the letter; any that the MCP server names if there is none, and for a
    /// client of the user's the first.
    pub issuer: Option<String>,
    /// An `https` URL of a document that says who the client is, for authorization servers that read such.
    pub client_metadata_url: Option<String>,
    /// What to ask for, in the place of what the server says.
    pub scopes: Vec<String>,
    /// What the tokens are for.
    pub resource: Resource,
    /// More parameters for the authorization request.
    pub parameters: Vec<(String, String)>,
    /// The port of this machine that the browser comes back to; any that is free if there is none.
    pub callback_port: Option<u16>,
    /// The host that it comes back to, which must be `localhost` or a loopback address as a URL has it; 127.0.0.1 if there is
    /// none, or `localhost` where the authorization server takes only that.
    pub callback_host: Option<String>,
    /// The path that it comes back to (`/callback`).
    pub callback_path: Option<String>,
    /// How long a request waits for a sign-in before it is answered with an error (20 s).
    pub login_wait: Duration,
    /// Where sign-ins are kept first; none unless set.
    pub keychain: Option<Keychain>,
    /// The folder for what no keychain keeps; without one, that is gone when the process ends.
    pub folder: Option<PathBuf>,
    show: Arc<dyn Fn(&Prompt) + Send + Sync>,
}

/// The ways to sign in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grant {
    /// The user signs in with a browser on this machine.
    #[default]
    Browser,
    /// The user signs in on any device (RFC 8628).
    Device,
    /// The client is its own user.
    ClientCredentials,
}

/// How a client proves who it is. Debug does not show it.
#[derive(Clone)]
pub enum Credential {
    /// A secret that the authorization server shares.
    Secret(Secret),
    /// A private key in PEM (PKCS #8), whose public key the authorization server has.
    Key(Secret),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret",
            Self::Key(_) => "Key",
        })
    }
}

/// A text that nobody is shown.
#[derive(Clone)]
pub struct Secret(String, #[expect(dead_code, reason = "it is concealed for as long as it is kept")] Concealed);

impl Secret {
    /// Takes it as it is.
    pub fn new(text: String) -> Self {
        // A key has lines.
        let concealed = Concealed::new(text.lines().filter(|line| !line.starts_with("-----")));
        Self(text, concealed)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What tokens are for (RFC 8707).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Resource {
    /// What the server calls itself, or its URL.
    #[default]
    Found,
    /// This.
    This(String),
    /// It is not said, for authorization servers that refuse to be told.
    None,
}

/// Where the user signs in.
#[derive(Clone, Serialize, Deserialize)]
pub enum Prompt {
    /// In a browser, at this URL.
    Browser {
        /// Good for one sign-in.
        url: String,
    },
    /// On any device.
    Device {
        /// Where the code is typed in.
        url: String,
        /// The same with the code in it, where there is such.
        complete: Option<String>,
        /// The code.
        code: String,
    },
}

impl Prompt {
    /// The URL to open.
    pub fn url(&self) -> &str {
        match self {
            Self::Browser { url } => url,
            Self::Device { url, complete, .. } => complete.as_ref().unwrap_or(url),
        }
    }
}

impl OAuth {
    /// Settings for a sign-in with a browser. `show` is told where the user signs in; it must not block.
    pub fn new(show: impl Fn(&Prompt) + Send + Sync + 'static) -> Self {
        Self {
            grant: Grant::default(),
            client_id: None,
            credential: None,
            issuer: None,
            client_metadata_url: None,
            scopes: Vec::new(),
            resource: Resource::default(),
            parameters: Vec::new(),
            callback_port: None,
            callback_host: None,
            callback_path: None,
            login_wait: Duration::from_secs(20),
            keychain: None,
            folder: None,
            show: Arc::new(show),
        }
    }

    fn secret(&self) -> Option<String> {
        match &self.credential {
            Some(Credential::Secret(secret)) => Some(secret.0.clone()),
            _ => None,
        }
    }

    /// The client as far as the user has named it; another one has tokens of its own.
    fn named_client(&self) -> Option<String> {
        let grant = if self.grant == Grant::ClientCredentials { "client credentials " } else { "" };
        let named = self.client_id.as_ref().or(self.client_metadata_url.as_ref());
        named.map(|name| format!("{grant}{name}"))
    }
}

impl fmt::Debug for OAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth")
            .field("grant", &self.grant)
            .field("client_id", &self.client_id)
            .field("credential", &self.credential)
            .field("issuer", &self.issuer)
            .field("scopes", &self.scopes)
            .field("login_wait", &self.login_wait)
            .finish_non_exhaustive()
    }
}

/// What comes of a command. No `async fn` gives it: the code of one is made anew in each crate that awaits it, and with these
/// all of signing in.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Signs in at the server of these settings, if it asks for that and there is no token for it yet. Waits for the user.
///
/// # Errors
/// No sign-in is possible, or it failed.
pub fn login(config: &Config) -> Answer<'_, ()> {
    Box::pin(async move {
        let source = SignIn::new(config).ok_or_else(|| Error::config("signing in is turned off"))?;
        let need = Need::default();
        // The limit is the sign-in's own.
        let outcome = source.token(&need, Duration::from_hours(1)).await;
        source.has_told().await;
        outcome.map(drop)
    })
}

/// What is kept of a sign-in, with nothing secret in it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The authorization server.
    pub issuer: String,
    /// What the token is for.
    pub resource: String,
    /// The client that it was given to.
    pub client_id: Option<String>,
    /// What it is good for.
    pub scopes: Vec<String>,
    /// Whether there is a token.
    pub is_signed_in: bool,
    /// When it expires, if that is known.
    pub expiry: Option<SystemTime>,
    /// Whether it can be renewed without the user.
    pub can_refresh: bool,
    /// Where all this is kept.
    pub kept: Kept,
}

/// What is kept for the server of these settings. Nothing is sent.
///
/// # Errors
/// There is a keychain, and it cannot be read.
pub fn status(config: &Config) -> Answer<'_, Vec<Status>> {
    Box::pin(async move {
        let Some(settings) = &config.oauth else { return Ok(Vec::new()) };
        let (_, records) = records(settings, &config.url).await?;
        let status = |(record, kept): (Record, Kept)| Status {
            client_id: record
                .client
                .as_ref()
                .map(|client| client.id.clone())
                .or_else(|| Some(record.tokens.as_ref()?.client_id.clone())),
            scopes: record.tokens.as_ref().map(|tokens| tokens.granted_scopes.clone()).unwrap_or_default(),
            is_signed_in: record.tokens.is_some(),
            expiry: record.expiry(),
            can_refresh: record.can_refresh(),
            issuer: record.key.issuer,
            resource: record.key.resource,
            kept,
        };
        Ok(records.into_iter().map(status).collect())
    })
}

/// What an authorization server knows of tokens that were forgotten.
#[derive(Debug)]
pub enum Revocation {
    /// They are good for nothing any more.
    Done,
    /// As much as before, as it does not offer to revoke them.
    NotOffered,
    /// That is not certain, for this reason.
    Failed(Error),
}

/// Has the tokens for the server of these settings revoked, where the authorization server offers that, and forgets them
/// whatever comes of it. Gives what did, for each record that was kept.
///
/// # Errors
/// They cannot be removed.
pub fn logout(config: &Config) -> Answer<'_, Vec<Revocation>> {
    Box::pin(async move {
        let Some(settings) = &config.oauth else { return Ok(Vec::new()) };
        let (store, records) = records(settings, &config.url).await?;
        let mut revocations = Vec::new();
        for (record, _) in &records {
            let _lock = store.lock(&record.key, |_| ()).await;
            revocations.push(match revoke(config, settings, &store, record).await {
                Ok(true) => Revocation::Done,
                Ok(false) => Revocation::NotOffered,
                Err(error) => Revocation::Failed(error),
            });
            let removed = store.remove(&record.key).await;
            removed.map_err(|error| Error::new(Fault::Storage, "the tokens cannot be removed").with_source(error))?;
        }
        Ok(revocations)
    })
}

async fn revoke(config: &Config, settings: &OAuth, store: &Store, record: &Record) -> Result<bool, Error> {
    if record.tokens.is_none() {
        return Ok(true);
    }
    let mut place = Place::find(settings, &config.url, Clients::new(config)?, &Challenge::default()).await?;
    if place.key.issuer != record.key.issuer {
        let summary = "the server has another authorization server now, which is not told of the tokens";
        return Err(Error::new(Fault::NoToken, summary));
    }
    place.is_meant(&config.url, store).await?;
    if let Some(client) = &record.client {
        place.prove_as(client);
    }
    place.revoke(record).await
}

async fn records(settings: &OAuth, server: &ServerUrl) -> Result<(Store, Vec<(Record, Kept)>), Error> {
    let store = Store::new(settings.keychain.clone(), settings.folder.clone());
    let mut records = store.all().await.map_err(|failure| {
        let summary = "the system's keychain cannot be read; --no-keychain leaves what is in it alone";
        Error::new(Fault::Storage, summary).with_source(failure)
    })?;
    let server = server.as_url().as_str();
    records.retain(|(record, _)| record.server == server || record.key.resource == server);
    Ok((store, records))
}

/// A token as it is sent.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) header: HeaderValue,
    scopes: Vec<String>,
    /// When it should be renewed, if it can be.
    stale_from: Option<SystemTime>,
    expiry: Option<SystemTime>,
    /// When this process renewed it, if it did.
    renewed: Option<Instant>,
    /// What the server said when it was needed, which leads to where it came from.
    challenge: Challenge,
    #[expect(dead_code, reason = "the token that it is renewed with; its own is concealed with the headers")]
    concealed: Concealed,
}

impl Token {
    fn of(record: &Record, challenge: &Challenge) -> Option<Self> {
        let stored = record.tokens.as_ref()?;
        let tokens = stored.token_response.as_ref()?;
        let mut header = HeaderValue::from_str(&format!("Bearer {}", tokens.access_token().secret())).ok()?;
        header.set_sensitive(true);
        let expiry = record.expiry();
        let ahead = tokens.expires_in().map(|life| AHEAD.min(life / 5));
        let stale_from = expiry.zip(ahead).and_then(|(expiry, ahead)| expiry.checked_sub(ahead));
        let (scopes, challenge) = (stored.granted_scopes.clone(), challenge.clone());
        let concealed = Concealed::new(tokens.refresh_token().map(oauth2::RefreshToken::secret));
        Some(Self { header, scopes, stale_from, expiry, renewed: None, challenge, concealed })
    }

    /// Whether it should be renewed before it is used again.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale_from.is_some_and(|from| from <= SystemTime::now())
    }

    /// Whether it is good for what the server asks.
    pub(crate) fn covers(&self, challenge: &Challenge) -> bool {
        let granted: HashSet<_> = self.scopes.iter().map(String::as_str).collect();
        challenge.scopes().all(|scope| granted.contains(scope))
    }

    fn secret(&self) -> &str {
        self.header.to_str().ok().and_then(|header| header.strip_prefix("Bearer ")).unwrap_or_default()
    }

    pub(crate) fn has_expired(&self) -> bool {
        self.expiry.is_some_and(|expiry| expiry <= SystemTime::now())
    }
}

/// Why a token is needed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Need {
    /// The one that the server refused, or that will soon expire.
    instead_of: Option<Arc<Token>>,
    /// What the server said when it refused.
    challenge: Challenge,
    /// The server wants one that is good for more.
    more: bool,
    /// Nobody has refused it yet, and no user is to be bothered.
    ahead: bool,
}

impl Need {
    /// To have this token renewed before it expires.
    pub(crate) fn ahead(token: &Arc<Token>) -> Self {
        Self { instead_of: Some(Arc::clone(token)), challenge: token.challenge.clone(), more: false, ahead: true }
    }

    /// To have another in the place of those headers' that were refused.
    pub(crate) fn after(token: Option<&Arc<Token>>, challenge: Challenge, more: bool) -> Self {
        // A server that echoes what it got does not have it sent elsewhere, or shown.
        let challenge = challenge.without(token.map_or("", |token| token.secret()));
        Self { instead_of: token.cloned(), challenge, more, ahead: false }
    }

    fn is_met_by(&self, token: &Token) -> bool {
        let is_other = self.instead_of.as_ref().is_none_or(|old| old.header != token.header);
        is_other && !token.has_expired() && (!self.more || token.covers(&self.challenge))
    }
}

type Outcome = Result<Arc<Token>, Arc<Error>>;

/// The source of one bridge's tokens.
#[derive(Debug)]
pub(crate) struct SignIn {
    shared: Arc<Shared>,
    latest: Mutex<Option<Run>>,
    begun: Notify,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    settings: OAuth,
    store: Store,
}

/// One way to a token, under way or at its end.
#[derive(Debug)]
struct Run {
    begun: Instant,
    outcome: watch::Receiver<Option<(Outcome, Instant)>>,
    prompt: watch::Receiver<Option<Prompt>>,
    /// What there was before it.
    before: Option<Arc<Token>>,
    is_ahead: bool,
    _task: Task,
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prompt")
    }
}

impl SignIn {
    /// The source for these settings, if signing in is not turned off. Nothing is read or set up before it is needed.
    pub(crate) fn new(config: &Config) -> Option<Self> {
        let settings = config.oauth.clone()?;
        let store = Store::new(settings.keychain.clone(), settings.folder.clone());
        let shared = Shared { config: config.clone(), store, settings };
        Some(Self { shared: Arc::new(shared), latest: Mutex::default(), begun: Notify::new() })
    }

    /// How long a request waits for a sign-in.
    pub(crate) fn patience(&self) -> Duration {
        self.shared.settings.login_wait
    }

    /// A token that meets the need. `patience` counts from the beginning of the sign-in, however late a request joins it.
    ///
    /// # Errors
    /// There is none, or none yet.
    pub(crate) async fn token(&self, need: &Need, patience: Duration) -> Result<Arc<Token>, Error> {
        let (mut outcome, prompt, begun) = {
            let mut latest = self.latest();
            let run = match latest.take() {
                Some(run) if !run.is_over_for(need) => run,
                old => self.begin(need.clone(), old),
            };
            let joined = (run.outcome.clone(), run.prompt.clone(), run.begun);
            *latest = Some(run);
            joined
        };
        let waited = timeout(patience.saturating_sub(begun.elapsed()), outcome.wait_for(Option::is_some)).await;
        match waited {
            Ok(Ok(outcome)) => match &*outcome {
                Some((Ok(token), _)) => Ok(Arc::clone(token)),
                // Sent again, the request would only be refused again.
                Some((Err(error), _)) => Err(error.repeated().with_fate(Fate::Final)),
                None => Err(pending(None)),
            },
            Ok(Err(_)) => Err(Error::new(Fault::NoToken, "the sign-in broke off")),
            Err(_) => Err(pending(prompt.borrow().as_ref())),
        }
    }

    /// Waits for the sign-in that is under way, if one is. True if there is a token then.
    pub(crate) async fn is_done(&self) -> bool {
        let Some(mut outcome) = self.latest().as_ref().map(|run| run.outcome.clone()) else { return false };
        let outcome = outcome.wait_for(Option::is_some).await;
        outcome.is_ok_and(|outcome| matches!(*outcome, Some((Ok(_), _))))
    }

    /// The last token that there was.
    pub(crate) fn found(&self) -> Option<Arc<Token>> {
        self.latest().as_ref().and_then(Run::token)
    }

    /// Waits until a sign-in is begun, after one that has ended.
    pub(crate) async fn next_begins(&self) {
        self.begun.notified().await;
    }

    /// Waits until the user is asked to sign in.
    pub(crate) async fn prompt(&self) -> Option<Prompt> {
        let mut prompt = self.latest().as_ref().map(|run| run.prompt.clone())?;
        prompt.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// What the user was asked, if that is so far.
    pub(crate) fn shown(&self) -> Option<Prompt> {
        self.latest().as_ref()?.prompt.borrow().clone()
    }

    /// The error of a request that does not wait for the user any longer.
    pub(crate) fn pending(&self) -> Error {
        pending(self.shown().as_ref())
    }

    /// Waits until the browser has been told what came of it, where there is one.
    async fn has_told(&self) {
        let Some(mut prompt) = self.latest().as_ref().map(|run| run.prompt.clone()) else { return };
        // Its sender lives as long as the user is dealt with.
        while prompt.changed().await.is_ok() {}
    }

    fn begin(&self, need: Need, old: Option<Run>) -> Run {
        let (found, outcome) = watch::channel(None);
        let (shown, prompt) = watch::channel(None);
        let shared = Arc::clone(&self.shared);
        let before = old.and_then(|run| run.token());
        let is_ahead = need.ahead;
        self.begun.notify_one();
        let task = tokio::spawn(async move {
            let user = User { show: Arc::clone(&shared.settings.show), shown, browser: Mutex::default() };
            let outcome = shared.obtain(&need, &user).await.map(Arc::new).map_err(Arc::new);
            if let Err(error) = &outcome {
                tracing::warn!(error = %error, detail = error.detail(), "no token");
            }
            let _ = found.send(Some((outcome.clone(), Instant::now())));
            user.tell(&outcome).await;
        });
        Run { begun: Instant::now(), outcome, prompt, before, is_ahead, _task: Task(task.abort_handle()) }
    }

    fn latest(&self) -> MutexGuard<'_, Option<Run>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever signs in.
struct User {
    show: Arc<dyn Fn(&Prompt) + Send + Sync>,
    shown: watch::Sender<Option<Prompt>>,
    /// The browser, from when it has come back until there is something to tell.
    browser: Mutex<Option<Arrival>>,
}

impl User {
    /// Asks for a sign-in, here and wherever another process waits for the lock.
    async fn ask(&self, prompt: Prompt, lock: Option<&Held>) {
        (self.show)(&prompt);
        if let Some(lock) = lock {
            lock.tell(&prompt).await;
        }
        self.is_asked(prompt);
    }

    /// Another process asks, or this one has.
    fn is_asked(&self, prompt: Prompt) {
        let _ = self.shown.send(Some(prompt));
    }

    fn has_come(&self, browser: Arrival) {
        *self.browser.lock().unwrap_or_else(PoisonError::into_inner) = Some(browser);
    }

    /// Says what came of it, once it is true.
    async fn tell(self, outcome: &Outcome) {
        let browser = self.browser.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Some(browser) = browser else { return };
        match outcome {
            Ok(_) => browser.tell(Ok(())).await,
            Err(error) => {
                let why = error.detail().map_or_else(|| error.to_string(), |detail| format!("{error}: {detail}"));
                browser.tell(Err(&why)).await;
            }
        }
    }
}

impl Run {
    /// Whether it has ended in a way that does not help.
    fn is_over_for(&self, need: &Need) -> bool {
        match &*self.outcome.borrow() {
            None => false,
            Some((Ok(token), _)) => !need.is_met_by(token),
            // The user was not asked by that one.
            Some((Err(_), _)) if self.is_ahead && !need.ahead => true,
            Some((Err(_), end)) => end.elapsed() > PAUSE,
        }
    }

    /// The last token there was.
    fn token(&self) -> Option<Arc<Token>> {
        match &*self.outcome.borrow() {
            Some((Ok(token), _)) => Some(Arc::clone(token)),
            _ => self.before.clone(),
        }
    }
}

impl Shared {
    /// The way to a token, from what is kept to the user.
    async fn obtain(&self, need: &Need, user: &User) -> Result<Token, Error> {
        let clients = Clients::new(&self.config)?;
        let mut place = Place::find(&self.settings, &self.config.url, clients, &need.challenge).await?;
        place.is_meant(&self.config.url, &self.store).await?;
        let lock = self.store.lock(&place.key, |prompt| user.is_asked(prompt)).await;
        let lock = lock.as_ref();
        let server = self.config.url.as_url().as_str();
        let mut record =
            self.store.load(&place.key).await.unwrap_or_else(|| Record::new(place.key.clone(), server.to_owned()));
        if let Some(token) = Token::of(&record, &need.challenge).filter(|token| need.is_met_by(token)) {
            return Ok(token);
        }
        let was_just_renewed =
            need.instead_of.as_ref().and_then(|token| token.renewed).is_some_and(|at| at.elapsed() < YOUNG);
        if !need.more && record.can_refresh() && !was_just_renewed {
            let renewed = place.refresh(&mut record).await;
            self.store.save(&record).await;
            if renewed? {
                let token = token_of(&record, need)?;
                tracing::info!("the token is renewed");
                return Ok(Token { renewed: Some(Instant::now()), ..token });
            }
        }
        if need.ahead && self.settings.grant != Grant::ClientCredentials {
            return Err(Error::new(Fault::NoToken, "the token cannot be renewed"));
        }
        let scopes = if need.more {
            let granted = need.instead_of.as_ref().map(|token| token.scopes.as_slice()).unwrap_or_default();
            place.more_scopes(granted, &need.challenge)
        } else {
            place.first_scopes().await
        };
        let outcome = match self.settings.grant {
            Grant::Browser => place.by_browser(&mut record, &scopes, user, lock).await,
            Grant::Device => place.by_device(&mut record, &scopes, user, lock).await,
            Grant::ClientCredentials => place.by_credentials(&mut record, scopes).await,
        };
        // A client that was registered is kept also if nobody has signed in.
        server.clone_into(&mut record.server);
        self.store.save(&record).await;
        outcome?;
        tracing::info!(issuer = record.key.issuer, "signed in");
        token_of(&record, need)
    }
}

fn token_of(record: &Record, need: &Need) -> Result<Token, Error> {
    Token::of(record, &need.challenge)
        .ok_or_else(|| Error::new(Fault::NoToken, "the token has characters that no header may carry"))
}

/// The user has not signed in yet.
fn pending(prompt: Option<&Prompt>) -> Error {
    match prompt {
        Some(prompt @ Prompt::Device { url, code, .. }) => {
            let summary = format!("sign in first: open {url} and type in the code {code}, then try again");
            Error::new(Fault::SignIn, summary).with_url(prompt.url())
        }
        Some(prompt @ Prompt::Browser { .. }) => {
            Error::new(Fault::SignIn, "sign in first, at the URL in data.url, then try again").with_url(prompt.url())
        }
        None => {
            Error::new(Fault::SignIn, "a sign-in is under way, here or in another window; try again when it is over")
        }
    }
}

/// The time as tokens have it.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
