//! Learns which tool arguments a modern server wants in HTTP headers, from its tool lists (R63–R66; no I/O).
//!
//! A property in a tool's `inputSchema` can have the keyword `x-mcp-header`. Its argument is then repeated in a header
//! of that name, so that intermediaries need not read bodies (Streamable HTTP 2026-07-28, "Custom Headers from Tool
//! Parameters"). The client on stdio may not know this keyword, so the bridge sends the headers.
//!
//! Rule: a schema is read once, when it is listed. A call only looks up its arguments. Schemas come from a peer, so
//! depth and memory are limited. A tool beyond the limits is passed on unchanged and not remembered.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use http::{HeaderName, HeaderValue};
use memchr::memmem;

use crate::{
    error::{Error, ErrorKind},
    json::splice::{self, Object, Splice},
    wire::{headers, message::Message},
};

/// The keyword in a property's schema that names a header.
const ANNOTATION: &str = "x-mcp-header";
/// The prefix of the header's name.
const PREFIX: &str = "mcp-param-";

/// The memory budget for all tools' headers, in bytes: enough for tens of thousands of tools.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// The most headers for one tool.
const MAX_HEADERS: usize = 100;
/// The deepest nesting of schemas, so that no text can use up the stack.
const MAX_DEPTH: usize = 64;
/// The longest tool name that is logged, in bytes. The specification allows no longer names.
const MAX_NAME_BYTES: usize = 128;

/// The largest integer that every JSON parser reads exactly, 2^53 - 1. Larger ones must not be in a header (R66).
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// Keywords that hold an object of named schemas.
const NAMED_SCHEMAS: [&str; 6] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"];
/// Keywords that hold values, not schemas.
const VALUES: [&str; 4] = ["default", "const", "enum", "examples"];

/// The tools that were listed.
#[derive(Debug, Default)]
pub(crate) struct Tools {
    /// The mirrored arguments of each tool, by its name. Empty for most tools, and for those that were dropped.
    known: HashMap<String, Vec<MirroredProperty>>,
    /// The memory that `known` takes, in bytes.
    size: usize,
}

/// A property whose argument is mirrored in a header, or that contains such properties.
#[derive(Debug)]
struct MirroredProperty {
    property: String,
    header: Option<HeaderName>,
    inner: Vec<MirroredProperty>,
}

/// Why a schema gives no headers.
#[derive(Debug, PartialEq, Eq)]
enum SchemaRefusal {
    /// An annotation breaks a rule, so the client must not see the tool (R65).
    Invalid(&'static str),
    /// It exceeds a limit.
    TooMuch,
}

impl Tools {
    /// Learns the tools of a `tools/list` result, which can be a page. Replaces earlier data of tools with the same
    /// name. Returns the message for the client, without the tools whose annotations are invalid (R65).
    pub(crate) fn learn(&mut self, answer: Message) -> Message {
        let Some(tools) = answer.result().and_then(|result| result.get("tools")) else { return answer };
        let mut dropped = HashSet::new();
        for tool in splice::elements(tools) {
            let Some(object) = Object::of(tool) else { continue };
            // A name that is not valid Unicode cannot be in a header either.
            let name = object.string("name");
            let mirrors = match object.object("inputSchema").map_or(Ok(Vec::new()), mirrors) {
                Ok(mirrors) => Some(mirrors),
                Err(SchemaRefusal::TooMuch) => None,
                Err(SchemaRefusal::Invalid(reason)) => {
                    warn(name.as_deref().unwrap_or_default(), reason);
                    dropped.insert(tool);
                    Some(Vec::new())
                }
            };
            if let Some(name) = name {
                self.remember(name, mirrors);
            }
        }
        if dropped.is_empty() {
            return answer;
        }
        let mut splice = Splice::new(answer.text());
        splice.remove_elements(tools, |tool| dropped.contains(tool));
        let rest = splice.finish();
        Message::one(rest).unwrap_or(answer)
    }

    /// True if the tool that a `tools/call` names was listed, so that another list would not help (R64).
    pub(crate) fn know(&self, call: &Message) -> bool {
        let name = call.params().and_then(|params| params.string("name"));
        name.is_some_and(|name| self.known.contains_key(&name))
    }

    /// Returns the headers for the arguments of a `tools/call` (R63), none if its tool is unknown or has none. Omits
    /// arguments that are missing or `null`, and those that cannot be a header: objects, arrays, and numbers other than
    /// integers up to 2^53 - 1 (R66).
    pub(crate) fn params(&self, call: &Message) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        if let Some(params) = call.params()
            && let Some(name) = params.string("name")
            && let Some(mirrors) = self.known.get(&name).filter(|mirrors| !mirrors.is_empty())
            && let Some(arguments) = params.object("arguments")
        {
            reflect(mirrors, arguments, &mut headers);
        }
        headers
    }

    fn remember(&mut self, name: String, mirrors: Option<Vec<MirroredProperty>>) {
        if let Some((name, mirrors)) = self.known.remove_entry(&name) {
            self.size = self.size.saturating_sub(size_of_tool(&name, &mirrors));
        }
        let Some(mirrors) = mirrors else { return };
        let size = self.size + size_of_tool(&name, &mirrors);
        if size <= MAX_BYTES {
            self.size = size;
            self.known.insert(name, mirrors);
        }
    }
}

/// Logs that a tool is not shown to the client.
fn warn(tool: &str, reason: &str) {
    let tool = tool.get(..tool.floor_char_boundary(MAX_NAME_BYTES)).unwrap_or_default();
    // An error escapes the peer's text.
    let error = Error::new(ErrorKind::InvalidAnswer, format!("the tool {tool} has an invalid {ANNOTATION}: {reason}"));
    tracing::warn!(error = %error, "a tool is not shown to the client");
}

fn size_of_tool(name: &str, mirrors: &[MirroredProperty]) -> usize {
    size_of::<(String, Vec<MirroredProperty>)>()
        + name.len()
        + mirrors.iter().map(MirroredProperty::size).sum::<usize>()
}

impl MirroredProperty {
    /// Returns the memory that it takes, in bytes.
    fn size(&self) -> usize {
        let header = self.header.as_ref().map_or(0, |header| header.as_str().len());
        size_of::<Self>() + self.property.len() + header + self.inner.iter().map(Self::size).sum::<usize>()
    }
}

/// Adds the headers for these arguments.
fn reflect(mirrors: &[MirroredProperty], arguments: Object<'_>, headers: &mut Vec<(HeaderName, HeaderValue)>) {
    // One pass over the arguments, which can be long. If several have one name, the last one counts.
    let mut values = vec![None; mirrors.len()];
    for argument in arguments.members() {
        for (mirror, value) in mirrors.iter().zip(&mut values) {
            if argument.is(&mirror.property) {
                *value = Some(argument.value);
            }
        }
    }
    for (mirror, value) in mirrors.iter().zip(values) {
        let Some(value) = value else { continue };
        if let Some(header) = &mirror.header
            && let Some(text) = text_of(value)
        {
            headers.push((header.clone(), headers::encoded(&text)));
        }
        if let Some(inner) = Object::of(value).filter(|_| !mirror.inner.is_empty()) {
            reflect(&mirror.inner, inner, headers);
        }
    }
}

/// Returns an argument as text, if it is a string, a boolean or an integer. Does not check it against the schema: the
/// server compares headers with the body and reports errors itself.
fn text_of(argument: &str) -> Option<Cow<'_, str>> {
    match argument.bytes().next()? {
        b'"' => serde_json::from_str::<String>(argument).ok().map(Cow::from),
        b't' | b'f' => Some(argument.into()),
        b'-' | b'0'..=b'9' => integer(argument).map(|integer| integer.to_string().into()),
        _ => None,
    }
}

/// Returns the integer that a JSON number is, also for `42.0` or `4.2e1`. Returns `None` for another number, and for an
/// integer that not every parser reads exactly.
fn integer(number: &str) -> Option<i64> {
    let (digits, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let exponent = exponent.parse::<i64>().ok()?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    let digits: i64 = format!("{whole}{fraction}").parse().ok()?;
    let power = 10_i64.checked_pow(u32::try_from(exponent.unsigned_abs()).ok()?)?;
    let integer = match exponent {
        0.. => digits.checked_mul(power)?,
        _ if digits % power == 0 => digits / power,
        _ => return None,
    };
    (integer.unsigned_abs() <= MAX_SAFE_INTEGER).then_some(integer)
}

/// Returns the mirrored arguments of a tool with this `inputSchema`.
fn mirrors(schema: Object<'_>) -> Result<Vec<MirroredProperty>, SchemaRefusal> {
    if !may_contain_annotation(schema.as_str()) {
        return Ok(Vec::new());
    }
    if schema.get(ANNOTATION).is_some() {
        return Err(SchemaRefusal::Invalid("it is not on a property"));
    }
    Schema::default().properties(schema, MAX_DEPTH)
}

/// State while a tool's schema is read.
#[derive(Default)]
struct Schema {
    /// The headers so far. Names of headers are case-insensitive.
    headers: HashSet<HeaderName>,
}

impl Schema {
    /// Returns the annotated properties of a schema that is reached through `properties` only. An annotation elsewhere
    /// in it is invalid.
    fn properties(&mut self, schema: Object<'_>, depth: usize) -> Result<Vec<MirroredProperty>, SchemaRefusal> {
        let depth = depth.checked_sub(1).ok_or(SchemaRefusal::TooMuch)?;
        let mut mirrors = Vec::new();
        for keyword in schema.members().filter(|keyword| may_contain_annotation(keyword.value)) {
            if keyword.is("properties")
                && let Some(properties) = Object::of(keyword.value)
            {
                for property in properties.members().filter(|property| may_contain_annotation(property.value)) {
                    let Some(schema) = Object::of(property.value) else { continue };
                    let header = schema.get(ANNOTATION).map(|name| self.header(name, schema)).transpose()?;
                    let inner = self.properties(schema, depth)?;
                    if header.is_some() || !inner.is_empty() {
                        mirrors.push(MirroredProperty { property: property.name(), header, inner });
                    }
                }
            } else if is_annotated_within(&keyword, depth)? {
                return Err(SchemaRefusal::Invalid("properties alone do not lead to it"));
            }
        }
        Ok(mirrors)
    }

    /// Returns the header that an annotation names. `name` is its value in JSON.
    fn header(&mut self, name: &str, schema: Object<'_>) -> Result<HeaderName, SchemaRefusal> {
        let Ok(name) = serde_json::from_str::<String>(name) else {
            return Err(SchemaRefusal::Invalid("it is no string"));
        };
        if name.is_empty() {
            return Err(SchemaRefusal::Invalid("it is empty"));
        }
        if !name.bytes().all(is_token_byte) {
            return Err(SchemaRefusal::Invalid("it has characters that no header's name may have"));
        }
        if !is_primitive(schema) {
            return Err(SchemaRefusal::Invalid("its property is no string, integer or boolean"));
        }
        // Fails if the name is longer than 64 KiB.
        let header = HeaderName::try_from(format!("{PREFIX}{name}")).map_err(|_| SchemaRefusal::TooMuch)?;
        if !self.headers.insert(header.clone()) {
            return Err(SchemaRefusal::Invalid("another property has the same"));
        }
        if self.headers.len() > MAX_HEADERS {
            return Err(SchemaRefusal::TooMuch);
        }
        Ok(header)
    }
}

/// True if a keyword of a schema has an annotation in its value.
fn is_annotated_within(keyword: &splice::Member<'_>, depth: usize) -> Result<bool, SchemaRefusal> {
    if VALUES.iter().any(|name| keyword.is(name)) {
        return Ok(false);
    }
    if NAMED_SCHEMAS.iter().any(|name| keyword.is(name))
        && let Some(schemas) = Object::of(keyword.value)
    {
        for named in schemas.members() {
            if is_annotated(named.value, depth)? {
                return Ok(true);
            }
        }
        return Ok(false);
    }
    // Check an unknown keyword too: a reference could lead into it.
    is_annotated(keyword.value, depth)
}

/// True if a schema, or one in it, has an annotation. `json` can also be a list of schemas.
fn is_annotated(json: &str, depth: usize) -> Result<bool, SchemaRefusal> {
    if !may_contain_annotation(json) {
        return Ok(false);
    }
    let depth = depth.checked_sub(1).ok_or(SchemaRefusal::TooMuch)?;
    for keyword in Object::of(json).iter().flat_map(|schema| schema.members()) {
        if keyword.is(ANNOTATION) || is_annotated_within(&keyword, depth)? {
            return Ok(true);
        }
    }
    for element in splice::elements(json) {
        if is_annotated(element, depth)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// True if a text may contain the annotation. Most texts do not, and need no closer look. The second needle finds names
/// that are written with escapes.
fn may_contain_annotation(json: &str) -> bool {
    [ANNOTATION, "\\u00"].iter().any(|part| memmem::find(json.as_bytes(), part.as_bytes()).is_some())
}

/// True if a schema is that of a string, an integer or a boolean, possibly also of `null`.
fn is_primitive(schema: Object<'_>) -> bool {
    let is_type = |json: &str, names: &[&str]| {
        serde_json::from_str::<String>(json).is_ok_and(|name| names.contains(&name.as_str()))
    };
    let Some(types) = schema.get("type") else { return false };
    is_type(types, &["string", "integer", "boolean"])
        || (splice::elements(types).all(|one| is_type(one, &["string", "integer", "boolean", "null"]))
            && splice::elements(types).any(|one| !is_type(one, &["null"])))
}

/// True if a byte is allowed in the name of a header (`tchar` of RFC 9110, 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn list(tools: &str) -> Message {
        Message::one(format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":{tools}}}}}"#)).unwrap()
    }

    /// The tools after a list of one tool, `t`, with these properties.
    fn listed(properties: &str) -> Tools {
        let mut tools = Tools::default();
        let answer = list(&format!(r#"[{{"name":"t","inputSchema":{{"type":"object","properties":{properties}}}}}]"#));
        assert_eq!(tools.learn(answer.clone()).bytes(), answer.bytes(), "{properties}");
        tools
    }

    fn call(arguments: &str) -> Message {
        Message::one(format!(r#"{{"id":1,"method":"tools/call","params":{{"name":"t","arguments":{arguments}}}}}"#))
            .unwrap()
    }

    fn params(tools: &Tools, arguments: &str) -> Vec<(String, String)> {
        let headers = tools.params(&call(arguments));
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    /// The only header of a call, without its prefix.
    fn param(tools: &Tools, arguments: &str) -> Option<String> {
        match params(tools, arguments).as_slice() {
            [] => None,
            [(name, value)] => Some(format!("{}: {value}", name.strip_prefix(PREFIX).unwrap())),
            more => panic!("{more:?}"),
        }
    }

    fn refusal(schema: &str) -> Option<SchemaRefusal> {
        mirrors(Object::of(schema).unwrap()).err()
    }

    #[test]
    fn r63_only_annotated_arguments_are_mirrored_to_headers() {
        let tools = listed(
            r#"{"region":{"type":"string","x-mcp-header":"Region"},"query":{"type":"string"},
                "priority":{"type":"integer","x-mcp-header":"Priority"},
                "verbose":{"type":["boolean","null"],"x-mcp-header":"Verbose"},
                "method":{"type":"string","x-mcp-header":"Method"}}"#,
        );
        let arguments = r#"{"query":"x","method":"","verbose":false,"priority":-7,"region":"us-west1","big":1e400}"#;
        let expected = [("region", "us-west1"), ("priority", "-7"), ("verbose", "false"), ("method", "")];
        let expected = expected.map(|(name, value)| (format!("mcp-param-{name}"), value.to_owned()));
        assert_eq!(params(&tools, arguments), expected);
        assert!(params(&tools, r#"{"query":"x","region":null,"verbose":null}"#).is_empty());
        assert!(params(&tools, "{}").is_empty() && params(&tools, "[1]").is_empty());
        let text = r#"{"id":1,"method":"tools/call","params":{"name":"t"}}"#;
        assert!(tools.params(&Message::one(text).unwrap()).is_empty());
    }

    #[test]
    fn r66_argument_values_are_encoded_as_header_values() {
        let tools = listed(r#"{"a":{"type":"string","x-mcp-header":"A"}}"#);
        for (value, expected) in [
            (r#""us-west1""#, Some("us-west1")),
            (r#""\u65e5\u672c""#, Some("=?base64?5pel5pys?=")),
            (r#"" x""#, Some("=?base64?IHg=?=")),
            (r#""a\r\nX: y""#, Some("=?base64?YQ0KWDogeQ==?=")),
            (r#""=?base64?x?=""#, Some("=?base64?PT9iYXNlNjQ/eD89?=")),
            (r#""\ud800""#, None),
            ("true", Some("true")),
            ("false", Some("false")),
            ("null", None),
            ("{}", None),
            (r#"["a"]"#, None),
            ("42", Some("42")),
            ("0", Some("0")),
            ("-0", Some("0")),
            ("-0.0e5", Some("0")),
            ("42.0", Some("42")),
            ("4.2e1", Some("42")),
            ("4200E-2", Some("42")),
            ("1E+15", Some("1000000000000000")),
            ("9007199254740991", Some("9007199254740991")),
            ("-9007199254740991", Some("-9007199254740991")),
            ("9007199254740991.000", Some("9007199254740991")),
            ("9007199254740992", None),
            ("-9007199254740992", None),
            ("9007199254740991.1", None),
            ("12345678901234567890", None),
            ("9e15", Some("9000000000000000")),
            ("9.1e15", None),
            ("3.14", None),
            ("-0.5", None),
            ("0.99999999999999999999", None),
            ("42e-1", None),
            ("1e400", None),
            ("1e-400", None),
            ("1e99999999999999999999", None),
            ("1e-9223372036854775808", None),
        ] {
            let expected = expected.map(|text| format!("a: {text}"));
            assert_eq!(param(&tools, &format!(r#"{{"a":{value}}}"#)), expected, "{value}");
        }
    }

    #[test]
    fn r63_nested_arguments_are_found_by_their_exact_path() {
        let tools = listed(
            r#"{"a":{"type":"object","properties":{"b":{"properties":{"c":{"type":"string","x-mcp-header":"C"}}},
                "x-mcp-header":{"type":"integer"}}},"\u0070roperties":{"p\u0072operties":{"a\/b":{
                "type":"string","x-mcp-header":"P"}}}}"#,
        );
        assert_eq!(param(&tools, r#"{"a":{"b":{"c":"x"}}}"#).as_deref(), Some("c: x"));
        assert_eq!(param(&tools, r#"{"a":{"b":{"\u0063":"x"}}}"#).as_deref(), Some("c: x"));
        assert_eq!(param(&tools, r#"{"a":{"b":{"c":"x"}},"a":{"b":{"c":"y"}}}"#).as_deref(), Some("c: y"));
        assert_eq!(param(&tools, r#"{"properties":{"a/b":"x"}}"#).as_deref(), Some("p: x"));
        for arguments in [
            r#"{"a":{"b":{"c":null}}}"#,
            r#"{"a":{"b":"c"}}"#,
            r#"{"a":[{"b":{"c":"x"}}]}"#,
            r#"{"b":{"c":"x"},"c":"x","a":{"c":"x","x-mcp-header":1}}"#,
            r#"{"a":null}"#,
        ] {
            assert_eq!(param(&tools, arguments), None, "{arguments}");
        }
    }

    #[test]
    fn r65_invalid_header_annotations_are_refused() {
        let on = |property: &str| format!(r#"{{"type":"object","properties":{{"a":{property}}}}}"#);
        let named = |name: &str| on(&format!(r#"{{"type":"string","x-mcp-header":{name}}}"#));
        let typed = |kind: &str| on(&format!(r#"{{"type":{kind},"x-mcp-header":"A"}}"#));
        let annotated = r#"{"type":"string","x-mcp-header":"A"}"#;

        let mut schemas: Vec<_> = [
            r#""""#,
            r#""My Region""#,
            r#""Region:Primary""#,
            r#""Région""#,
            r#""Region\t1""#,
            r#""A\r\nX: y""#,
            r#""a\u0000""#,
            r#""\ud800""#,
            r#""a/b""#,
            r#""a(b)""#,
            r#""\"a\"""#,
            "1",
            "null",
            "true",
            "{}",
            r#"["A"]"#,
        ]
        .map(named)
        .into();
        schemas.extend(
            [
                r#""object""#,
                r#""array""#,
                r#""null""#,
                r#""number""#,
                r#"["number","null"]"#,
                r#"["null"]"#,
                "[]",
                r#"["string","object"]"#,
                "{}",
                "1",
                r#""String""#,
            ]
            .map(typed),
        );
        schemas.extend([
            on(r#"{"x-mcp-header":"A"}"#),
            on(r##"{"$ref":"#/$defs/x","x-mcp-header":"A"}"##),
            on(r#"{"type":"string","x-mcp-h\u0065ader":""}"#),
            // Twice, in any case and at any depth.
            format!(r#"{{"properties":{{"a":{annotated},"b":{annotated}}}}}"#),
            format!(r#"{{"properties":{{"a":{annotated},"b":{}}}}}"#, annotated.replace('A', "a")),
            format!(r#"{{"properties":{{"a":{annotated},"b":{{"properties":{{"c":{annotated}}}}}}}}}"#),
            // Not reached through `properties` only.
            r#"{"type":"object","x-mcp-header":"A"}"#.into(),
            on(&format!(r#"{{"type":"array","items":{annotated}}}"#)),
            on(&format!(r#"{{"type":"array","prefixItems":[{annotated}]}}"#)),
            on(&format!(r#"{{"type":"array","items":{{"properties":{{"a":{annotated}}}}}}}"#)),
            on(&format!(r#"{{"allOf":[{{"properties":{{"a":{annotated}}}}}]}}"#)),
            on(&format!(r#"{{"if":{{"properties":{{"a":{annotated}}}}}}}"#)),
        ]);
        schemas.extend(["oneOf", "anyOf", "allOf"].map(|keyword| format!(r#"{{"{keyword}":[{{}},{annotated}]}}"#)));
        schemas.extend(
            ["not", "if", "then", "else", "items", "contains", "additionalProperties", "propertyNames", "x-other"]
                .map(|keyword| format!(r#"{{"{keyword}":{annotated}}}"#)),
        );
        schemas.extend(
            ["$defs", "definitions", "patternProperties", "dependentSchemas"]
                .map(|keyword| format!(r#"{{"{keyword}":{{"x-mcp-header":{annotated}}}}}"#)),
        );
        for schema in schemas {
            assert!(serde_json::from_str::<&serde_json::value::RawValue>(&schema).is_ok(), "{schema}");
            assert!(matches!(refusal(&schema), Some(SchemaRefusal::Invalid(_))), "{schema}");
        }
    }

    #[test]
    fn r65_schemas_resembling_invalid_annotations_are_accepted() {
        for schema in [
            r#"{"properties":{"x-mcp-header":{"type":"object"}}}"#,
            r#"{"properties":{"x-mcp-header":{"type":"string","x-mcp-header":"x-mcp-header"}}}"#,
            r#"{"$defs":{"x-mcp-header":{"type":"object"},"a":{"properties":{"x-mcp-header":true}}}}"#,
            r#"{"properties":{"a":{"type":"object","default":{"x-mcp-header":""}}}}"#,
            r#"{"examples":[{"x-mcp-header":1}],"const":{"x-mcp-header":1},"enum":[{"x-mcp-header":1}]}"#,
            r#"{"description":"x-mcp-header","required":["x-mcp-header"],"maximum":1e400}"#,
            r#"{"dependentRequired":{"a":["x-mcp-header"]}}"#,
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"!#$%&'*+-.^_`|~09azAZ"}}}"#,
            r#"{"properties":{"a":{"type":["string","integer","null"],"x-mcp-header":"A"}}}"#,
            r#"{"properties":{"a":true,"b":"x-mcp-header","c":["x-mcp-header"]}}"#,
            r#"{"properties":["x-mcp-header"]}"#,
        ] {
            assert_eq!(refusal(schema), None, "{schema}");
        }
    }

    #[test]
    fn r65_only_tools_with_invalid_annotations_are_removed() {
        let good = r#"{ "name":"t", "big":9007199254740993, "huge":1e400,"s":"\ud800",
            "inputSchema":{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}, "outputSchema":{"x-mcp-header":""}}"#;
        let bad = r#"{"inputSchema":{"properties":{"a":{"type":"number","x-mcp-header":"A"}}},"name":"bad\u001b[2J"}"#;
        let nameless = r#"{"inputSchema":{"x-mcp-header":"A"}}"#;
        let text = |tools: &str| {
            format!(r#"{{"jsonrpc":"2.0", "id":1,"result":{{"ttlMs":0,"tools":{tools}, "nextCursor":"2" ,"x":1.0}}}}"#)
        };
        let whole = text(&format!("[{bad},{good},{nameless},5,{bad}]"));
        let mut tools = Tools::default();
        let shown = tools.learn(Message::one(whole).unwrap());
        assert_eq!(shown.bytes(), text(&format!("[{good},5]")).as_bytes());
        assert_eq!(shown.id().unwrap().as_str(), "1");
        assert_eq!(param(&tools, r#"{"a":"x"}"#).as_deref(), Some("a: x"));
        // It was listed, so another list would not help.
        let call = r#"{"id":1,"method":"tools/call","params":{"name":"bad\u001b[2J","arguments":{"a":1}}}"#;
        let call = Message::one(call).unwrap();
        assert!(tools.know(&call) && tools.params(&call).is_empty());
    }

    #[test]
    fn answers_without_annotated_tools_are_unchanged() {
        for text in [
            r#"{"id":1,"error":{"code":-32601,"message":"tools"}}"#,
            r#"{"id":1,"result":{}}"#,
            r#"{"id":1,"result":{"tools":{"name":"t"}}}"#,
            r#"{"id":1,"result":[]}"#,
            r#"{"id":1,"result":{"tools":[1,null,{"name":7},{"name":"t","inputSchema":true}, {"name":"t"} ]}}"#,
        ] {
            assert_eq!(Tools::default().learn(Message::one(text).unwrap()).bytes(), text);
        }
    }

    #[test]
    fn r63_tool_list_pages_accumulate_and_relisted_tools_are_replaced() {
        let annotated = |name: &str, header: &str| {
            list(&format!(
                r#"[{{"name":"{name}","inputSchema":{{"properties":{{"a":{{"type":"string","x-mcp-header":"{header}"}}}}}}}}]"#
            ))
        };
        let mut tools = Tools::default();
        assert!(!tools.know(&call("{}")));
        tools.learn(annotated("t", "One"));
        tools.learn(annotated("u", "Two"));
        assert!(tools.know(&call("{}")));
        assert_eq!(param(&tools, r#"{"a":"x"}"#).as_deref(), Some("one: x"));
        tools.learn(annotated("t", "Three"));
        assert_eq!(param(&tools, r#"{"a":"x"}"#).as_deref(), Some("three: x"));
        tools.learn(annotated("t", "not valid"));
        assert_eq!(param(&tools, r#"{"a":"x"}"#), None);
        tools.learn(annotated("t", "One"));
        tools.learn(list(r#"[{"name":"\u0074"}]"#));
        assert!(tools.know(&call("{}")));
        assert_eq!(param(&tools, r#"{"a":"x"}"#), None);
        tools.learn(list("[]"));
        assert!(tools.know(&call("{}")), "an empty page takes nothing back");
    }

    #[test]
    fn remembered_tools_use_bounded_memory() {
        let mut tools = Tools::default();
        let long = "x".repeat(1024 * 1024);
        for page in 0..12 {
            let answer = list(&format!(r#"[{{"name":"{page}{long}"}},{{"name":"t{page}"}}]"#));
            assert_eq!(tools.learn(answer.clone()).bytes(), answer.bytes());
        }
        assert!(tools.size <= MAX_BYTES && tools.known.len() == 7 + 12);
        let size = tools.size;
        tools.learn(list(r#"[{"name":"t0"},{"name":"t1"}]"#));
        assert_eq!(tools.size, size, "the same tools take no more room");
        let sum: usize = tools.known.iter().map(|(name, mirrors)| size_of_tool(name, mirrors)).sum();
        assert_eq!(tools.size, sum);
    }

    #[test]
    fn tool_over_a_limit_is_listed_but_not_remembered() {
        let wants = |count: usize| {
            let property = |number| format!(r#""{number}":{{"type":"string","x-mcp-header":"H{number}"}}"#);
            let properties = (0..count).map(property).collect::<Vec<_>>().join(",");
            list(&format!(r#"[{{"name":"t","inputSchema":{{"properties":{{{properties}}}}}}}]"#))
        };
        let mut tools = Tools::default();
        tools.learn(wants(MAX_HEADERS));
        assert_eq!(param(&tools, r#"{"99":"x"}"#).as_deref(), Some("h99: x"));
        let answer = wants(MAX_HEADERS + 1);
        assert_eq!(tools.learn(answer.clone()).bytes(), answer.bytes());
        assert!(!tools.know(&call("{}")));
        assert_eq!((tools.size, param(&tools, r#"{"99":"x"}"#)), (0, None));
        let long = format!(r#"{{"properties":{{"a":{{"type":"string","x-mcp-header":"{}"}}}}}}"#, "a".repeat(70_000));
        assert_eq!(refusal(&long), Some(SchemaRefusal::TooMuch));
    }

    #[test]
    fn deeply_nested_tool_schemas_are_handled() {
        let annotated = r#"{"type":"string","x-mcp-header":"A"}"#;
        for (open, close) in [(r#"{"properties":{"a":"#, "}}"), (r#"{"not":"#, "}"), ("[", "]")] {
            let nested =
                |depth| format!(r#"{{"properties":{{"a":{}{annotated}{}}}}}"#, open.repeat(depth), close.repeat(depth));
            assert_ne!(refusal(&nested(MAX_DEPTH / 2)), Some(SchemaRefusal::TooMuch), "{open}");
            assert!(matches!(refusal(&nested(1_000)), Some(SchemaRefusal::TooMuch) | None), "{open}");
        }
        let deep = r#"{"a":"#.repeat(60) + "\"x\"" + &"}".repeat(60);
        let schema = r#"{"properties":{"a":"#.repeat(60) + annotated + &"}}".repeat(60);
        let mut tools = Tools::default();
        tools.learn(list(&format!(r#"[{{"name":"t","inputSchema":{schema}}}]"#)));
        assert_eq!(param(&tools, &deep).as_deref(), Some("a: x"));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            Just(json!({"type": "string", "x-mcp-header": "A"})),
            "(x-mcp-header|string|\\PC{0,4})".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 4, |inner| {
            let key = "(properties|x-mcp-header|type|items|a|b|t|tools|name|inputSchema)";
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn r65_valid_tools_of_any_list_are_unchanged(schemas in prop::collection::vec(json(), 0..4), pretty: bool) {
            let tools: Vec<_> = schemas.iter().map(|schema| json!({"name": "t", "inputSchema": schema})).collect();
            let answer = json!({"id": 1, "result": {"tools": tools, "ttlMs": 0}});
            let text = if pretty { serde_json::to_string_pretty(&answer) } else { serde_json::to_string(&answer) };
            let shown = Tools::default().learn(Message::one(text.unwrap()).unwrap());
            let is_kept = |schema: &&Value| {
                let schema = schema.to_string();
                Object::of(&schema).is_none_or(|schema| !matches!(mirrors(schema), Err(SchemaRefusal::Invalid(_))))
            };
            let kept: Vec<_> =
                schemas.iter().filter(is_kept).map(|schema| json!({"name": "t", "inputSchema": schema})).collect();
            let expected = json!({"id": 1, "result": {"tools": kept, "ttlMs": 0}});
            prop_assert_eq!(serde_json::from_slice::<Value>(shown.bytes()).unwrap(), expected);
        }

        #[test]
        fn r63_arguments_at_any_property_path_are_mirrored(path in prop::collection::vec("\\PC{0,5}", 1..6), text in "[a-z]{1,5}") {
            let (mut schema, mut arguments) = (json!({"type": "string", "x-mcp-header": "A"}), json!(text));
            for name in path.iter().rev() {
                schema = json!({"type": "object", "properties": {name: schema}});
                arguments = json!({name: arguments, "other other": 1});
            }
            let mut tools = Tools::default();
            tools.learn(list(&json!([{"name": "t", "inputSchema": schema}]).to_string()));
            prop_assert_eq!(param(&tools, &arguments.to_string()), Some(format!("a: {text}")));
        }

        #[test]
        fn r66_safe_integers_are_parsed_exactly(number: i64, zeros in "0{1,4}") {
            let expected = (number.unsigned_abs() <= MAX_SAFE_INTEGER).then_some(number);
            prop_assert_eq!(integer(&number.to_string()), expected);
            prop_assert_eq!(integer(&format!("{number}.{zeros}")), expected);
        }

        #[test]
        fn r66_an_integer_may_be_written_with_an_exponent(number in -99_999_i64..99_999, places in 0_usize..10) {
            prop_assert_eq!(integer(&format!("{number}{}e-{places}", "0".repeat(places))), Some(number));
            let shifted = 10_i64.pow(u32::try_from(places).unwrap()) * number;
            prop_assert_eq!(integer(&format!("{number}e{places}")), Some(shifted));
        }
    }
}
