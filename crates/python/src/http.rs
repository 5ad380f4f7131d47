//! The HTTP client for Python: requests with timeouts and limits like those of httpx, and bodies that are streamed.
//!
//! Rule: closing a response frees its connection at once. The permit belongs to the task that reads the body.

use std::{
    error::Error as _,
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header, response::Parts};
use http_body_util::{Either, Full};
use mcp_gangway_core::{
    ClientIdentity, Proxy, ProxyUrl, ServerUrl, Tls,
    http::{Body, HttpClient as Client, HttpSettings, HttpVersion, UnixSocket},
};
use pyo3::{
    exceptions::{PyRuntimeError, PyValueError},
    prelude::*,
    pybacked::PyBackedBytes,
    types::{PyBytes, PyList},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::AbortHandle,
    time,
};

use crate::{
    chunks::{Chunks, Taken},
    completions::{Finish, Operation, Waiter, lock},
    failure::Failure,
    framing, hints,
    runtime::{self, Process},
    upload::{Consumed, Pieces, Upload},
};

/// Longer than any connection takes: only the requests' own timeouts count.
const NO_LIMIT: Duration = Duration::from_hours(24);
/// A longer body than this is not passed to Python at once, in bytes.
const LONG: usize = 1 << 20;

/// A client with connections to any number of servers.
#[pyclass(frozen, module = "mcp_gangway._native")]
pub(crate) struct HttpClient {
    /// None once it is closed.
    client: Mutex<Option<Client<Content>>>,
    connections: Arc<Semaphore>,
    process: Process,
}

/// A request body: complete, or produced by Python while it is sent.
type Content = Either<Full<Bytes>, Pieces>;

/// A request body from Python.
#[derive(FromPyObject)]
enum Given<'py> {
    Whole(PyBackedBytes),
    Made(Bound<'py, Upload>),
}

/// The timeouts of one request, in seconds: connect, read, pool. None means no limit.
type Times = (Option<f64>, Option<f64>, Option<f64>);

/// The timeouts of one request.
struct Limits {
    /// To get one of the limited number of connections.
    pool: Option<Duration>,
    /// DNS, TCP, proxy and TLS together.
    connect: Option<Duration>,
    /// The longest time without data from the server.
    read: Option<Duration>,
}

#[pymethods]
impl HttpClient {
    /// `verify=False` accepts any certificate; `authorities` and `identity` are PEM texts; `proxy` is a URL. Without
    /// a proxy, `trust_env` uses the system's proxies.
    #[new]
    #[pyo3(signature = (*, verify, authorities, identity, proxy, trust_env, http1, http2, keepalive_connections,
                        keepalive_expiry, connections, unix_socket))]
    #[expect(clippy::too_many_arguments, clippy::fn_params_excessive_bools, reason = "keyword arguments in Python")]
    fn new(
        verify: bool,
        authorities: Vec<Vec<u8>>,
        identity: Option<(Vec<u8>, Vec<u8>)>,
        proxy: Option<&str>,
        trust_env: bool,
        http1: bool,
        http2: bool,
        keepalive_connections: Option<usize>,
        keepalive_expiry: Option<f64>,
        connections: Option<usize>,
        unix_socket: Option<PathBuf>,
    ) -> PyResult<Self> {
        let mut tls = Tls::default();
        tls.insecure = !verify;
        tls.ca_certificates = authorities;
        tls.client = identity.map(|(certificates, key)| ClientIdentity::new(certificates, key));
        let mut settings = HttpSettings::default();
        settings.tls = tls;
        settings.proxy = match proxy {
            Some(url) => Proxy::Url { url: ProxyUrl::parse(url).map_err(value_error)?, except: None },
            None if trust_env => Proxy::System,
            None => Proxy::None,
        };
        settings.unix_socket = unix_socket.map(|path| UnixSocket::for_all(&path));
        settings.connect = NO_LIMIT;
        settings.version = match (http1, http2) {
            (true, false) => HttpVersion::Http1,
            (true, true) => HttpVersion::Auto,
            (false, true) => HttpVersion::Http2,
            (false, false) => return Err(PyValueError::new_err("http1 and http2 cannot both be False")),
        };
        settings.idle_for = seconds(keepalive_expiry)?.unwrap_or(NO_LIMIT);
        settings.idle_connections = keepalive_connections.unwrap_or(usize::MAX);
        Ok(Self {
            client: Mutex::new(Some(Client::new(settings).map_err(value_error)?)),
            connections: Arc::new(Semaphore::new(connections.unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS))),
            process: Process::current(),
        })
    }

    /// Sends a request. The future gets its `HttpResponse`, with the whole body if `whole`.
    #[pyo3(signature = (waiter, future, method, url, headers, body, timeout, whole))]
    #[expect(clippy::too_many_arguments, reason = "one call from Python is cheaper than several")]
    fn send(
        &self,
        py: Python<'_>,
        waiter: Waiter<'_>,
        future: Py<PyAny>,
        method: &str,
        url: &str,
        headers: Vec<(PyBackedBytes, PyBackedBytes)>,
        body: Option<Given<'_>>,
        timeout: Times,
        whole: bool,
    ) -> PyResult<Operation> {
        self.process.check("client")?;
        let Some(client) = lock(&self.client).clone() else {
            return Err(PyRuntimeError::new_err("Cannot send a request, as the client has been closed."));
        };
        let (body, consumed) = match body {
            Some(Given::Made(upload)) => {
                let (pieces, consumed) = upload.get().body()?;
                (Either::Right(pieces), Some((upload, consumed)))
            }
            Some(Given::Whole(bytes)) => (Either::Left(Full::new(Bytes::copy_from_slice(&bytes))), None),
            None => (Either::Left(Full::default()), None),
        };
        let mut request = request(method, url, headers, body).map_err(|failure| failure.into_exception(py))?;
        let declared = framing::framed(&mut request).map_err(|failure| failure.into_exception(py))?;
        let consumed = consumed.map(|(upload, consumed)| {
            upload.get().declare(declared);
            consumed
        });
        let (connect, read, pool) = timeout;
        let limits = Limits { pool: seconds(pool)?, connect: seconds(connect)?, read: seconds(read)? };
        let connections = Arc::clone(&self.connections);
        waiter.spawn(future, async move {
            let permit = within(limits.pool, "pool_timeout", connections.acquire_owned()).await?;
            let permit = permit.map_err(|_| Failure::closed())?;
            let response = sent(&client, request, consumed, &limits).await?;
            let response = if whole {
                HttpResponse::whole(response, limits.read, permit).await?
            } else {
                HttpResponse::streaming(response, limits.read, permit)
            };
            Ok::<Finish, _>(Box::new(|py| Ok(Py::new(py, response)?.into_any())))
        })
    }

    /// Refuses further requests. Requests in flight go on.
    fn close(&self) {
        lock(&self.client).take();
    }
}

/// Returns a URL in its normal form, resolved against `base` if there is one.
#[pyfunction]
#[pyo3(signature = (url, base = None))]
pub(crate) fn normalized_url(py: Python<'_>, url: &str, base: Option<&str>) -> PyResult<String> {
    let base = base.map(ServerUrl::parse).transpose();
    let normal = base.and_then(|base| mcp_gangway_core::http::normalized_url(url, base.as_ref()));
    // Without the cause, which could quote the URL and the secrets in it.
    normal.map_err(|error| Failure::new("invalid_url", error.worded(hints::words)).into_exception(py))
}

/// Returns the headers of the POST for this JSON-RPC message.
#[pyfunction]
pub(crate) fn message_headers<'py>(py: Python<'py>, message: &[u8]) -> PyResult<Bound<'py, PyList>> {
    let headers = mcp_gangway_core::message_headers(&Bytes::copy_from_slice(message)).map_err(value_error)?;
    pairs(py, &headers)
}

fn pairs<'py>(py: Python<'py>, headers: &HeaderMap) -> PyResult<Bound<'py, PyList>> {
    let pairs = headers.iter();
    PyList::new(py, pairs.map(|(name, value)| (PyBytes::new(py, name.as_ref()), PyBytes::new(py, value.as_bytes()))))
}

/// Builds the request.
fn request(
    method: &str,
    url: &str,
    headers: Vec<(PyBackedBytes, PyBackedBytes)>,
    body: Content,
) -> Result<Request<Content>, Failure> {
    let invalid = |what: &str| Failure::new("invalid_request", format!("{what} cannot be sent in HTTP"));
    let mut request = Request::new(body);
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| invalid("the method"))?;
    *request.uri_mut() = Uri::try_from(url).map_err(|_| Failure::new("invalid_url", "the URL cannot be used"))?;
    let map = request.headers_mut();
    for (name, value) in headers {
        // A value may be a secret, so it is not in the message.
        let shown = || format!("the header {:?}", String::from_utf8_lossy(&name));
        let key = HeaderName::from_bytes(&name).map_err(|_| invalid(&shown()))?;
        // Spaces around a value do not belong to it (RFC 9110, 5.5), and HTTP/2 forbids them.
        let value = without_blanks(&value);
        let value = HeaderValue::from_bytes(value).map_err(|_| invalid(&format!("the value of {}", shown())))?;
        map.append(key, value);
    }
    Ok(request)
}

fn without_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Sends the request and waits for the head of its response. While Python produces the body, the read timeout does
/// not run.
async fn sent(
    client: &Client<Content>,
    request: Request<Content>,
    consumed: Option<Consumed>,
    limits: &Limits,
) -> Result<Response<Body>, Failure> {
    let (tell, connected) = oneshot::channel();
    let mut sending = std::pin::pin!(client.send_with_callback(request, move || {
        let _ = tell.send(());
    }));
    tokio::select! {
        response = &mut sending => return Ok(response?),
        connected = within(limits.connect, "connect_timeout", connected) => drop(connected?),
    }
    if let Some(consumed) = consumed {
        tokio::select! {
            response = &mut sending => return Ok(response?),
            _ = consumed => {}
        }
    }
    Ok(within(limits.read, "read_timeout", sending).await??)
}

/// Waits for `work`, at most for this time.
pub(crate) async fn within<T>(
    limit: Option<Duration>,
    kind: &'static str,
    work: impl Future<Output = T>,
) -> Result<T, Failure> {
    let Some(limit) = limit else { return Ok(work.await) };
    time::timeout(limit, work).await.map_err(|_| Failure::new(kind, format!("more than {} s", limit.as_secs_f64())))
}

/// A response: its head, and its body as it arrives.
#[pyclass(frozen, module = "mcp_gangway._native")]
pub(crate) struct HttpResponse {
    head: Parts,
    chunks: Arc<Chunks>,
    /// The unread body. It can be read raw or decompressed.
    unread: Mutex<Option<Unread>>,
    reading: Mutex<Option<AbortHandle>>,
    /// The whole body, until Python takes it.
    content: Mutex<Option<Vec<u8>>>,
    process: Process,
}

struct Unread {
    body: Body,
    limit: Option<Duration>,
    permit: OwnedSemaphorePermit,
}

#[pymethods]
impl HttpResponse {
    #[getter]
    fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    #[getter]
    fn http_version(&self) -> &'static str {
        match self.head.version {
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        }
    }

    /// Names and values, in order of arrival.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        pairs(py, &self.head.headers)
    }

    /// Returns the whole body once, if it was requested with the head and is not long. Otherwise it is read like a
    /// stream.
    fn take_content<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let content = lock(&self.content).take();
        content.map(|content| PyBytes::new(py, &content))
    }

    /// Starts to read the body: unchanged if `raw`, otherwise decompressed. Does nothing if the body is not
    /// compressed, because reading has started already.
    fn start(&self, raw: bool) -> PyResult<()> {
        self.process.check("response")?;
        if let Some(unread) = lock(&self.unread).take() {
            let task = runtime::handle()?.spawn(unread.read(raw, Arc::clone(&self.chunks)));
            *lock(&self.reading) = Some(task.abort_handle());
        }
        Ok(())
    }

    /// Takes what has arrived: a list of chunks, empty if there is nothing yet, or None at the end.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        taken(py, self.chunks.take())
    }

    /// Sets the future when there is more to take.
    fn wait(&self, waiter: Waiter<'_>, future: Py<PyAny>) -> PyResult<Operation> {
        self.process.check("response")?;
        let (promise, operation) = waiter.promise(future)?;
        self.chunks.tell(promise);
        Ok(operation)
    }

    /// Stops reading and frees the connection, for reuse if the body was read to its end. Can be called from any
    /// thread.
    fn close(&self) {
        if !self.process.is_current() {
            return;
        }
        self.chunks.close();
        lock(&self.unread).take();
        if let Some(reading) = lock(&self.reading).take() {
            reading.abort();
        }
    }
}

impl HttpResponse {
    fn new(head: Parts, unread: Option<Unread>) -> Self {
        Self {
            head,
            chunks: Arc::default(),
            unread: Mutex::new(unread),
            reading: Mutex::default(),
            content: Mutex::default(),
            process: Process::current(),
        }
    }

    /// Reads the whole body, or the beginning of a long one, of which Python then makes its own object as it arrives:
    /// so no second copy exists.
    async fn whole(
        response: Response<Body>,
        limit: Option<Duration>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, Failure> {
        let (head, mut body) = response.into_parts();
        let response = Self::new(head, None);
        let mut content = Vec::new();
        while let Some(chunk) = within(limit, "read_timeout", body.chunk()).await?.map_err(broken)? {
            content.extend_from_slice(&chunk);
            if content.len() > LONG {
                response.chunks.put(content.into());
                response.read(Unread { body, limit, permit }, false);
                return Ok(response);
            }
        }
        *lock(&response.content) = Some(content);
        Ok(response)
    }

    /// Streams the body. Reading starts at once, unless the body is compressed: then the reader chooses the form
    /// first.
    fn streaming(response: Response<Body>, limit: Option<Duration>, permit: OwnedSemaphorePermit) -> Self {
        let (head, body) = response.into_parts();
        let unread = Unread { body, limit, permit };
        if head.headers.contains_key(header::CONTENT_ENCODING) {
            return Self::new(head, Some(unread));
        }
        let response = Self::new(head, None);
        response.read(unread, false);
        response
    }

    /// Starts to read on the runtime that runs this.
    fn read(&self, unread: Unread, raw: bool) {
        let task = tokio::spawn(unread.read(raw, Arc::clone(&self.chunks)));
        *lock(&self.reading) = Some(task.abort_handle());
    }
}

impl Drop for HttpResponse {
    fn drop(&mut self) {
        self.close();
    }
}

impl Unread {
    async fn read(mut self, raw: bool, chunks: Arc<Chunks>) {
        let outcome = loop {
            let chunk = async { if raw { self.body.raw_chunk().await } else { self.body.chunk().await } };
            match within(self.limit, "read_timeout", chunk).await {
                Ok(Ok(Some(chunk))) => chunks.push(chunk).await,
                Ok(Ok(None)) => break Ok(()),
                Ok(Err(error)) => break Err(broken(error)),
                Err(failure) => break Err(failure),
            }
        };
        // Free the connection before the reader learns of the end.
        drop((self.body, self.permit));
        chunks.end(outcome);
    }
}

/// Converts the error of a body that ended early. A decoding error has a source from the decoder, not from hyper.
fn broken(error: mcp_gangway_core::Error) -> Failure {
    match error.source() {
        Some(source) if source.is::<io::Error>() => Failure::new("not_decoded", error.to_string()).because_of(source),
        _ => error.into(),
    }
}

/// Converts the outcome of a read for Python.
pub(crate) fn taken(py: Python<'_>, taken: Taken) -> PyResult<Option<Bound<'_, PyAny>>> {
    let list = match taken {
        Taken::Chunks(chunks) => PyList::new(py, chunks.iter().map(|chunk| PyBytes::new(py, chunk)))?,
        Taken::Nothing => PyList::empty(py),
        Taken::End(Ok(())) => return Ok(None),
        Taken::End(Err(failure)) => return Err(failure.into_exception(py)),
    };
    Ok(Some(list.into_any()))
}

pub(crate) fn seconds(value: Option<f64>) -> PyResult<Option<Duration>> {
    let duration = value.map(Duration::try_from_secs_f64).transpose();
    duration.map_err(|_| PyValueError::new_err("a timeout is a number of seconds from 0 on, or None"))
}

fn value_error(error: mcp_gangway_core::Error) -> PyErr {
    PyValueError::new_err(Failure::from(error).message().to_owned())
}
