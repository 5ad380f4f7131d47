//! OAuth 2.1 sign-in as MCP specifies it, from a 401 to a token and its renewal.
//!
//! ```text
//! refusal --challenge--> Place (rmcp: discovery) --store, lock--> kept token | refresh | grant --> Token
//!                                                    grant = browser (callback) | device | client credentials
//! ```
//!
//! Each bridge has one `SignIn`, which does nothing before the first refusal. After that, one `Run` at a time obtains
//! a token in its own task. Callers wait for the run up to the limit in the settings; after that they get an error
//! that says where to sign in. A lock lets only one process run at a time, and the others find the tokens that the
//! first one stored.
//!
//! Rule: a token that the server refused is not sent again, and is sent to no other server.

mod account;
mod answer;
mod binding;
mod callback;
mod challenge;
mod device;
mod keychain;
mod lock;
mod register;
mod requests;
mod revoke;
mod settings;
mod sign_in;
mod store;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::HeaderValue;
use oauth2::TokenResponse as _;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

pub(crate) use self::challenge::Challenge;
pub use self::{
    account::{Account, AccountFuture, Revocation, Status},
    keychain::Keychain,
    settings::{Credential, Grant, OAuth, Prompt, Resource, Secret},
    store::Kept,
};
use self::{
    callback::Arrival,
    lock::HeldLock,
    sign_in::Place,
    store::{Record, Store},
};
use crate::{
    error::{Error, ErrorKind, Fate},
    secrets::Concealed,
    task::Task,
};

/// After a failed sign-in, the user is not asked again for this long. Otherwise each request would open another
/// window.
const PAUSE: Duration = Duration::from_secs(30);
/// A token is renewed this long before it expires, or after four fifths of its life if that is later.
const RENEWAL_LEAD_TIME: Duration = Duration::from_mins(1);
/// A token that is refused this soon after its renewal is not renewed again, because that would not help.
const MIN_RENEWAL_INTERVAL: Duration = Duration::from_secs(30);

/// An access token, ready to be sent.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) header: HeaderValue,
    scopes: Vec<String>,
    /// When to renew it, if its expiry is known.
    stale_from: Option<SystemTime>,
    expiry: Option<SystemTime>,
    /// When this process renewed it, if it did.
    renewed: Option<Instant>,
    /// The challenge that led to this token. Its renewal starts from it.
    challenge: Challenge,
    #[expect(dead_code, reason = "conceals the refresh token; the access token is concealed with the headers")]
    concealed: Concealed,
}

impl Token {
    fn of(record: &Record, challenge: &Challenge) -> Option<Self> {
        let stored = record.tokens.as_ref()?;
        let tokens = stored.token_response.as_ref()?;
        let mut header = HeaderValue::from_str(&format!("Bearer {}", tokens.access_token().secret())).ok()?;
        header.set_sensitive(true);
        let expiry = record.expiry();
        let ahead = tokens.expires_in().map(|life| RENEWAL_LEAD_TIME.min(life / 5));
        let stale_from = expiry.zip(ahead).and_then(|(expiry, ahead)| expiry.checked_sub(ahead));
        let (scopes, challenge) = (stored.granted_scopes.clone(), challenge.clone());
        let concealed = Concealed::new(tokens.refresh_token().map(oauth2::RefreshToken::secret));
        Some(Self { header, scopes, stale_from, expiry, renewed: None, challenge, concealed })
    }

    /// True if it should be renewed before its next use.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale_from.is_some_and(|from| from <= SystemTime::now())
    }

    /// True if it has the scopes that the server asks for.
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
pub(crate) struct TokenRequirement {
    /// The token that the server refused, or that expires soon.
    instead_of: Option<Arc<Token>>,
    /// The challenge of the refusal.
    challenge: Challenge,
    /// True if the server asks for a token with more scopes.
    more: bool,
    /// True if no server has refused the token yet, so the user must not be asked.
    ahead: bool,
}

impl TokenRequirement {
    /// The need to renew this token before it expires.
    pub(crate) fn ahead(token: &Arc<Token>) -> Self {
        Self { instead_of: Some(Arc::clone(token)), challenge: token.challenge.clone(), more: false, ahead: true }
    }

    /// The need for a new token after a refusal.
    pub(crate) fn after(token: Option<&Arc<Token>>, challenge: Challenge, more: bool) -> Self {
        // If the server echoes the token, it must not be sent elsewhere or shown.
        let challenge = challenge.without(token.map_or("", |token| token.secret()));
        Self { instead_of: token.cloned(), challenge, more, ahead: false }
    }

    fn is_satisfied_by(&self, token: &Token) -> bool {
        let is_other = self.instead_of.as_ref().is_none_or(|old| old.header != token.header);
        is_other && !token.has_expired() && (!self.more || token.covers(&self.challenge))
    }
}

type TokenOutcome = Result<Arc<Token>, Arc<Error>>;

/// The source of tokens for one bridge.
#[derive(Debug)]
pub(crate) struct SignIn {
    shared: Arc<Shared>,
    latest: Mutex<Option<Run>>,
    begun: Notify,
}

#[derive(Debug)]
struct Shared {
    account: Account,
    store: Store,
}

/// One attempt to obtain a token, running or finished.
#[derive(Debug)]
struct Run {
    begun: Instant,
    outcome: watch::Receiver<Option<(TokenOutcome, Instant)>>,
    prompt: watch::Receiver<Option<Prompt>>,
    /// The last token before this run.
    before: Option<Arc<Token>>,
    is_ahead: bool,
    _task: Task,
}

impl SignIn {
    /// Creates the source for this account. Reads and sets up nothing until a token is needed.
    pub(crate) fn new(account: Account) -> Self {
        let store = account.store();
        Self { shared: Arc::new(Shared { account, store }), latest: Mutex::default(), begun: Notify::new() }
    }

    /// How long a request waits for a sign-in.
    pub(crate) fn patience(&self) -> Duration {
        self.shared.account.settings.login_wait
    }

    /// Returns a token that meets the need. `patience` counts from the start of the sign-in, even if the request
    /// joins later.
    ///
    /// # Errors
    /// There is no token, or none yet.
    pub(crate) async fn token(&self, need: &TokenRequirement, patience: Duration) -> Result<Arc<Token>, Error> {
        let (mut outcome, prompt, begun) = {
            let mut latest = self.latest();
            let run = match latest.take() {
                Some(run) if !run.has_failed_for(need) => run,
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
                // The server would refuse the request again, so do not repeat it.
                Some((Err(error), _)) => Err(error.repeated().with_fate(Fate::Final)),
                None => Err(pending(None)),
            },
            Ok(Err(_)) => Err(Error::new(ErrorKind::NoToken, "the sign-in broke off")),
            Err(_) => Err(pending(prompt.borrow().as_ref())),
        }
    }

    /// Waits for the running sign-in, if there is one. Returns true if there is a token then.
    pub(crate) async fn is_done(&self) -> bool {
        let Some(mut outcome) = self.latest().as_ref().map(|run| run.outcome.clone()) else { return false };
        let outcome = outcome.wait_for(Option::is_some).await;
        outcome.is_ok_and(|outcome| matches!(*outcome, Some((Ok(_), _))))
    }

    /// Returns the last token.
    pub(crate) fn found(&self) -> Option<Arc<Token>> {
        self.latest().as_ref().and_then(Run::token)
    }

    /// Waits until a sign-in starts, after one that has ended.
    pub(crate) async fn wait_for_next_sign_in(&self) {
        self.begun.notified().await;
    }

    /// Waits until the user is asked to sign in.
    pub(crate) async fn prompt(&self) -> Option<Prompt> {
        let mut prompt = self.latest().as_ref().map(|run| run.prompt.clone())?;
        prompt.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Returns the prompt that the user was shown, if there is one yet.
    pub(crate) fn shown(&self) -> Option<Prompt> {
        self.latest().as_ref()?.prompt.borrow().clone()
    }

    /// Returns the error for a request that no longer waits for the user.
    pub(crate) fn pending(&self) -> Error {
        pending(self.shown().as_ref())
    }

    /// Waits until the browser shows the outcome, if a browser is used.
    async fn wait_for_browser(&self) {
        let Some(mut prompt) = self.latest().as_ref().map(|run| run.prompt.clone()) else { return };
        // The sender lives until the browser has its answer.
        while prompt.changed().await.is_ok() {}
    }

    fn begin(&self, need: TokenRequirement, old: Option<Run>) -> Run {
        let (found, outcome) = watch::channel(None);
        let (shown, prompt) = watch::channel(None);
        let shared = Arc::clone(&self.shared);
        let before = old.and_then(|run| run.token());
        let is_ahead = need.ahead;
        self.begun.notify_one();
        let task = tokio::spawn(async move {
            let user = User { show: Arc::clone(&shared.account.settings.show), shown, browser: Mutex::default() };
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

/// The user who signs in.
struct User {
    show: Arc<dyn Fn(&Prompt) + Send + Sync>,
    shown: watch::Sender<Option<Prompt>>,
    /// The returned browser, until it can be told the outcome.
    browser: Mutex<Option<Arrival>>,
}

impl User {
    /// Asks the user to sign in, here and in other processes that wait for the lock.
    async fn ask(&self, prompt: Prompt, lock: Option<&HeldLock>) {
        (self.show)(&prompt);
        if let Some(lock) = lock {
            lock.tell(&prompt).await;
        }
        self.is_asked(prompt);
    }

    /// Records that this process or another one has asked the user.
    fn is_asked(&self, prompt: Prompt) {
        let _ = self.shown.send(Some(prompt));
    }

    fn set_browser(&self, browser: Arrival) {
        *self.browser.lock().unwrap_or_else(PoisonError::into_inner) = Some(browser);
    }

    /// Shows the outcome in the browser, after it is final.
    async fn tell(self, outcome: &TokenOutcome) {
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
    /// True if it has ended without meeting this need.
    fn has_failed_for(&self, need: &TokenRequirement) -> bool {
        match &*self.outcome.borrow() {
            None => false,
            Some((Ok(token), _)) => !need.is_satisfied_by(token),
            // That run did not ask the user.
            Some((Err(_), _)) if self.is_ahead && !need.ahead => true,
            Some((Err(_), end)) => end.elapsed() > PAUSE,
        }
    }

    /// Returns the last token.
    fn token(&self) -> Option<Arc<Token>> {
        match &*self.outcome.borrow() {
            Some((Ok(token), _)) => Some(Arc::clone(token)),
            _ => self.before.clone(),
        }
    }
}

impl Shared {
    /// Obtains a token: a stored one, a renewed one, or one from a sign-in.
    async fn obtain(&self, need: &TokenRequirement, user: &User) -> Result<Token, Error> {
        let Account { server, settings, .. } = &self.account;
        let mut place = Place::find(settings, server, self.account.clients()?, &need.challenge).await?;
        place.is_meant(server, &self.store).await?;
        let lock = self.store.lock(&place.key, |prompt| user.is_asked(prompt)).await;
        let lock = lock.as_ref();
        let server = server.as_url().as_str();
        let mut record =
            self.store.load(&place.key).await.unwrap_or_else(|| Record::new(place.key.clone(), server.to_owned()));
        if let Some(token) = Token::of(&record, &need.challenge).filter(|token| need.is_satisfied_by(token)) {
            return Ok(token);
        }
        let was_just_renewed = need
            .instead_of
            .as_ref()
            .and_then(|token| token.renewed)
            .is_some_and(|at| at.elapsed() < MIN_RENEWAL_INTERVAL);
        if !need.more && record.can_refresh() && !was_just_renewed {
            let renewed = place.refresh(&mut record).await;
            self.store.save(&record).await;
            if renewed? {
                let token = token_of(&record, need)?;
                tracing::info!("the token is renewed");
                return Ok(Token { renewed: Some(Instant::now()), ..token });
            }
        }
        if need.ahead && settings.grant != Grant::ClientCredentials {
            return Err(Error::new(ErrorKind::NoToken, "the token cannot be renewed"));
        }
        let scopes = if need.more {
            let granted = need.instead_of.as_ref().map(|token| token.scopes.as_slice()).unwrap_or_default();
            place.step_up_scopes(granted, &need.challenge)
        } else {
            place.initial_scopes().await
        };
        let outcome = match settings.grant {
            Grant::Browser => place.authorize_with_browser(&mut record, &scopes, user, lock).await,
            Grant::Device => place.authorize_with_device(&mut record, &scopes, user, lock).await,
            Grant::ClientCredentials => place.authorize_with_credentials(&mut record, scopes).await,
        };
        // Keep a newly registered client even if the sign-in failed.
        server.clone_into(&mut record.server);
        self.store.save(&record).await;
        outcome?;
        tracing::info!(issuer = record.key.issuer, "signed in");
        token_of(&record, need)
    }
}

fn token_of(record: &Record, need: &TokenRequirement) -> Result<Token, Error> {
    Token::of(record, &need.challenge)
        .ok_or_else(|| Error::new(ErrorKind::NoToken, "the token has characters that a header must not contain"))
}

/// Returns the error for a user who has not signed in yet.
fn pending(prompt: Option<&Prompt>) -> Error {
    match prompt {
        Some(prompt @ Prompt::Device { url, code, .. }) => {
            let summary = format!("sign in first: open {url} and type in the code {code}, then try again");
            Error::new(ErrorKind::SignIn, summary).with_url(prompt.url())
        }
        Some(prompt @ Prompt::Browser { .. }) => {
            Error::new(ErrorKind::SignIn, "sign in first, at the URL in data.url, then try again")
                .with_url(prompt.url())
        }
        None => Error::new(
            ErrorKind::SignIn,
            "a sign-in is under way, here or in another window; try again when it is over",
        ),
    }
}

/// Returns the current time in seconds since the Unix epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
