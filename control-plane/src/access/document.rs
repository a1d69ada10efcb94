//! The file of `--access`: who there is, how they show it, and what they may do.

use serde::Deserialize;
use serde_saphyr::Spanned;
use weir_mesh::identity::SpiffeId;
use weir_mesh::model::{ServiceName, Violations};
use weir_mesh::token::Algorithm;

use super::Role;
use super::grants::{ByCertificate, ByToken, Certificate, Grant, Grants, ServiceAccount};
use super::oidc;
use crate::text;

/// Entries of one list.
const MAX_ENTRIES: usize = 1000;
/// Characters of a name, which the history repeats.
const MAX_NAME: usize = 128;
/// The mesh's own token has this name.
const RESERVED: &str = "admin";

type Text = Option<Spanned<String>>;
type Texts = Option<Vec<Spanned<String>>>;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Document {
    tokens: Vec<Spanned<Token>>,
    certificates: Vec<Spanned<CertificateEntry>>,
    service_accounts: Vec<Spanned<Account>>,
    oidc: Option<Spanned<Oidc>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Token {
    name: Text,
    sha256: Text,
    expires: Text,
    role: Text,
    services: Texts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct CertificateEntry {
    name: Text,
    spiffe_id: Text,
    common_name: Text,
    fingerprint: Text,
    role: Text,
    services: Texts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Account {
    namespace: Text,
    name: Text,
    role: Text,
    services: Texts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Oidc {
    issuer: Text,
    audience: Text,
    jwks_uri: Text,
    ca_file: Text,
    algorithms: Texts,
    claims: Option<Claims>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Claims {
    name: Text,
    prefix: Text,
    roles: Vec<Spanned<Mapping>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Mapping {
    claim: Text,
    value: Text,
    role: Text,
    services: Texts,
}

/// Reads the file's text, YAML or JSON. Nothing of it is repeated that could be a
/// secret.
///
/// # Errors
/// All that is wrong, by its path and line.
pub fn parse(text: &str) -> Result<Grants, String> {
    let blank = text.lines().all(|line| matches!(line.trim().chars().next(), None | Some('#')));
    let document: Document = if blank {
        Document::default()
    } else {
        serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())?
    };
    let mut reader = Reader(Violations::new());
    let grants = reader.document(&document);
    reader.0.finish(Some(grants)).map_err(|invalid| invalid.to_string())
}

/// Notes what is wrong, by path and line.
struct Reader(Violations);

/// Where an entry is.
#[derive(Clone, Copy)]
struct At<'a>(&'a str, u64);

impl Reader {
    fn document(&mut self, document: &Document) -> Grants {
        let mut grants = Grants::default();
        let lists = [
            ("tokens", document.tokens.len()),
            ("certificates", document.certificates.len()),
            ("serviceAccounts", document.service_accounts.len()),
        ];
        for (name, count) in lists.into_iter().filter(|(_, count)| *count > MAX_ENTRIES) {
            self.0
                .add(name, format_args!("has {count} entries; at most {MAX_ENTRIES} are possible"));
        }
        for (i, entry) in document.tokens.iter().enumerate() {
            let path = format!("tokens[{i}]");
            let at = At(&path, entry.referenced.line());
            let token = self.token(at, &entry.value, &grants.tokens);
            grants.tokens.extend(token);
        }
        for (i, entry) in document.certificates.iter().enumerate() {
            let path = format!("certificates[{i}]");
            let at = At(&path, entry.referenced.line());
            let certificate = self.certificate(at, &entry.value);
            grants.certificates.extend(certificate);
        }
        for (i, entry) in document.service_accounts.iter().enumerate() {
            let path = format!("serviceAccounts[{i}]");
            let at = At(&path, entry.referenced.line());
            let account = self.account(at, &entry.value);
            grants.service_accounts.extend(account);
        }
        grants.oidc = document
            .oidc
            .as_ref()
            .and_then(|entry| self.oidc(At("oidc", entry.referenced.line()), &entry.value));
        grants
    }

    fn add(&mut self, At(path, line): At<'_>, field: &str, why: impl std::fmt::Display) {
        self.0.add(format!("{path}.{field}"), format_args!("{why} (line {line})"));
    }

    /// A text that must be there.
    fn need<'a>(&mut self, at: At<'_>, field: &str, text: &'a Text, why: &str) -> Option<&'a str> {
        match text {
            Some(text) if !text.value.trim().is_empty() => Some(text.value.trim()),
            Some(text) => {
                self.add(At(at.0, text.referenced.line()), field, format_args!("is empty; {why}"));
                None
            }
            None => {
                self.add(at, field, format_args!("is missing; {why}"));
                None
            }
        }
    }

    /// A text that may be absent, read by `read`. None: something is wrong with it.
    fn read<T, E: std::fmt::Display>(
        &mut self,
        at: At<'_>,
        field: &str,
        text: &Text,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Option<T>> {
        let Some(text) = text else { return Some(None) };
        match read(text.value.trim()) {
            Ok(value) => Some(Some(value)),
            Err(why) => {
                self.add(At(at.0, text.referenced.line()), field, why);
                None
            }
        }
    }

    fn name(&mut self, at: At<'_>, text: &Text) -> Option<String> {
        let name = self.need(at, "name", text, "say what the history is to call the caller")?;
        match check_name(name) {
            Ok(()) => Some(name.to_owned()),
            Err(why) => {
                self.add(At(at.0, line(text, at)), "name", why);
                None
            }
        }
    }

    fn grant(&mut self, at: At<'_>, name: &str, role: &Text, services: &Texts) -> Option<Grant> {
        let names = "viewer, shifter, operator or admin";
        let read = self.need(at, "role", role, &format!("use {names}"))?;
        let Some(role) = Role::ALL.into_iter().find(|role| role.as_str() == read) else {
            let why = format!("{:?} is no role; use {names}", super::methods::plain(read));
            self.add(At(at.0, line(role, at)), "role", why);
            return None;
        };
        let services = match services {
            None => None,
            Some(_) if role != Role::Shifter => {
                self.add(at, "services", format_args!("only a shifter has them, not a {role}"));
                return None;
            }
            Some(list) if list.is_empty() => {
                self.add(
                    at,
                    "services",
                    "is empty; name services, or leave it out for all of them",
                );
                return None;
            }
            Some(list) => {
                let mut read = Vec::with_capacity(list.len());
                for (i, name) in list.iter().enumerate() {
                    match name.value.parse::<ServiceName>() {
                        Ok(name) => read.push(name.to_string()),
                        Err(why) => {
                            let at = At(at.0, name.referenced.line());
                            self.add(at, &format!("services[{i}]"), why);
                        }
                    }
                }
                Some(read)
            }
        };
        Some(Grant { name: name.to_owned(), role, services })
    }

    fn token(&mut self, at: At<'_>, entry: &Token, others: &[ByToken]) -> Option<ByToken> {
        let name = self.name(at, &entry.name);
        let grant =
            self.grant(at, name.as_deref().unwrap_or_default(), &entry.role, &entry.services);
        let why = "`weir access token NAME` makes a token and prints its hash";
        let sha256 = self.need(at, "sha256", &entry.sha256, why).and_then(|text| {
            // The text may be a token by mistake: it is not repeated.
            let hash = unhex(text);
            if hash.is_none() {
                let why = "is not the SHA-256 of a token in 64 hexadecimal digits";
                self.add(At(at.0, line(&entry.sha256, at)), "sha256", why);
            }
            hash
        });
        let expires = self.read(at, "expires", &entry.expires, text::parse_rfc3339);
        let name = name?;
        if others.iter().any(|other| other.grant.name == name) {
            self.add(at, "name", format_args!("{name:?} is there twice"));
        }
        let sha256 = sha256?;
        if others.iter().any(|other| other.sha256 == sha256) {
            self.add(at, "sha256", "is there twice: each caller needs a token of its own");
        }
        Some(ByToken { sha256, expires: expires?, grant: grant? })
    }

    fn certificate(&mut self, at: At<'_>, entry: &CertificateEntry) -> Option<ByCertificate> {
        let given = [&entry.spiffe_id, &entry.common_name, &entry.fingerprint];
        let certificate = match given.iter().filter(|field| field.is_some()).count() {
            1 => self.shown(at, entry),
            _ => {
                let why = "name one of spiffeId, commonName and fingerprint";
                self.0.add(at.0, format_args!("{why} (line {})", at.1));
                None
            }
        };
        let own = match &certificate {
            Some(Certificate::SpiffeId(text) | Certificate::CommonName(text)) => text.clone(),
            _ => String::new(),
        };
        let name = match &entry.name {
            None if check_name(&own).is_ok() => Some(own),
            text => self.name(at, text),
        };
        let grant =
            self.grant(at, name.as_deref().unwrap_or_default(), &entry.role, &entry.services);
        Some(ByCertificate { certificate: certificate?, grant: name.and(grant)? })
    }

    fn shown(&mut self, at: At<'_>, entry: &CertificateEntry) -> Option<Certificate> {
        let id = |text: &str| text.parse::<SpiffeId>().map(|id| id.to_string());
        let spiffe_id = self.read(at, "spiffeId", &entry.spiffe_id, id)?;
        let common = |text: &str| match text.is_empty() {
            true => Err("is empty; give the certificate's common name"),
            false => Ok(text.to_owned()),
        };
        let common_name = self.read(at, "commonName", &entry.common_name, common)?;
        let print = |text: &str| {
            let digits: String = text.chars().filter(|c| *c != ':').collect();
            unhex(&digits).ok_or("is not the SHA-256 of a certificate (DER) in hexadecimal")
        };
        let fingerprint = self.read(at, "fingerprint", &entry.fingerprint, print)?;
        let found = spiffe_id.map(Certificate::SpiffeId);
        let found = found.or(common_name.map(Certificate::CommonName));
        found.or(fingerprint.map(Certificate::Fingerprint))
    }

    fn account(&mut self, at: At<'_>, entry: &Account) -> Option<ServiceAccount> {
        let namespace = self.need(at, "namespace", &entry.namespace, "name the account's");
        let name = self.need(at, "name", &entry.name, "name the service account");
        let whole = format!(
            "system:serviceaccount:{}:{}",
            namespace.unwrap_or_default(),
            name.unwrap_or_default()
        );
        let grant = self.grant(at, &whole, &entry.role, &entry.services);
        namespace.and(name)?;
        Some(ServiceAccount { username: whole, grant: grant? })
    }

    fn oidc(&mut self, at: At<'_>, entry: &Oidc) -> Option<oidc::Settings> {
        let issuer = self.need(at, "issuer", &entry.issuer, "give the issuer's URL");
        let why = "name what tokens for this API have in `aud`";
        let audience = self.need(at, "audience", &entry.audience, why);
        let jwks = self.read(at, "jwksUri", &entry.jwks_uri, oidc::check_url);
        if let (Some(issuer), Some(None)) = (issuer, &jwks)
            && let Err(why) = oidc::check_url(issuer)
        {
            self.add(At(at.0, line(&entry.issuer, at)), "issuer", why);
        }
        let mut algorithms = Vec::new();
        for (i, text) in entry.algorithms.iter().flatten().enumerate() {
            match text.value.parse::<Algorithm>() {
                Ok(algorithm) => algorithms.push(algorithm),
                Err(why) => {
                    self.add(At(at.0, text.referenced.line()), &format!("algorithms[{i}]"), why);
                }
            }
        }
        if entry.algorithms.is_none() {
            algorithms.extend(oidc::ALGORITHMS);
        } else if entry.algorithms.iter().all(Vec::is_empty) {
            self.add(at, "algorithms", "is empty; name some, or leave it out");
        }
        let ca_file = self.read(at, "caFile", &entry.ca_file, |path| match path.is_empty() {
            true => Err("is empty; name a file of PEM certificates"),
            false => Ok(path.into()),
        });
        let none = Claims::default();
        let claims = entry.claims.as_ref().unwrap_or(&none);
        let text = |text: &Text| text.as_ref().map(|text| text.value.trim().to_owned());
        let mut roles = Vec::new();
        for (i, mapping) in claims.roles.iter().enumerate() {
            let path = format!("oidc.claims.roles[{i}]");
            let role = self.mapping(At(&path, mapping.referenced.line()), &mapping.value);
            roles.extend(role);
        }
        if claims.roles.is_empty() {
            let why = "is empty; say which claim gives which role, or nobody may do anything";
            self.add(at, "claims.roles", why);
        }
        Some(oidc::Settings {
            issuer: issuer?.into(),
            audience: audience?.into(),
            jwks_uri: jwks?,
            ca_file: ca_file?,
            algorithms,
            name: text(&claims.name).filter(|name| !name.is_empty()).unwrap_or("sub".to_owned()),
            prefix: text(&claims.prefix).unwrap_or("oidc:".to_owned()),
            roles,
        })
    }

    fn mapping(&mut self, at: At<'_>, entry: &Mapping) -> Option<oidc::Mapping> {
        let claim = self.need(at, "claim", &entry.claim, "name a claim, such as groups");
        let value = self.need(at, "value", &entry.value, "say what the claim must be or hold");
        let grant = self.grant(at, "", &entry.role, &entry.services);
        let grant = grant?;
        Some(oidc::Mapping {
            claim: claim?.to_owned(),
            value: value?.to_owned(),
            role: grant.role,
            services: grant.services,
        })
    }
}

fn line(text: &Text, at: At<'_>) -> u64 {
    text.as_ref().map_or(at.1, |text| text.referenced.line())
}

/// What the history can call somebody.
fn check_name(name: &str) -> Result<(), String> {
    let length = name.chars().count();
    if name == RESERVED {
        Err(format!("{RESERVED:?} is who holds the mesh's own token; use another name"))
    } else if length > MAX_NAME || length == 0 {
        Err(format!("has {length} characters; use 1 to {MAX_NAME}"))
    } else if name.chars().any(char::is_control) {
        Err("has control characters; use plain text".to_owned())
    } else {
        Ok(())
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests;
