//! What callers decide about accounts: new profiles, and changes by mask.

use super::{limits, ownership};
use crate::api::fields::{self, Etag, Violations};
use crate::api::proto::account::Auth as ProtoAuth;
use crate::api::proto::{Account as ProtoAccount, Security as ProtoSecurity};
use crate::domain::account::{Login, Profile, Security, Server};
use crate::domain::address::{Address, Mailbox};
use crate::domain::error::{Problem, Reason};
use crate::domain::providers;
use crate::domain::secret::Secret;
use crate::mime::words;

/// Longest sender name in characters.
const MAX_SENDER_NAME: usize = 256;
/// Longest host name in bytes (RFC 1035 2.3.4).
const MAX_HOST_BYTES: usize = 253;
/// Longest user name in bytes: an address with room to spare.
const MAX_USERNAME_BYTES: usize = 320;
/// Longest password in bytes.
const MAX_PASSWORD_BYTES: usize = 1_024;
/// The port on which an account that names no security uses implicit TLS.
const IMPLICIT_TLS_PORT: u32 = 465;

/// The paths of an update mask that this server knows, besides those of single limits.
const PATHS: [&str; 11] = [
    "active",
    "sender_name",
    "sender_email",
    "host",
    "port",
    "security",
    "none",
    "password",
    "mailings_first",
    "shared",
    "limits",
];

/// A profile, and the password that came with it.
pub(super) struct Wanted {
    pub(super) profile: Profile,
    pub(super) password: Option<Secret>,
}

/// The profile of an account that is to be created or checked.
///
/// # Errors
/// `INVALID_FIELD` with everything that is wrong.
pub(super) fn parse_new(account: ProtoAccount) -> Result<Wanted, Problem> {
    let mut violations = Violations::default();
    let wanted = parse(account, None, &mut violations);
    if let Some(Wanted { profile: Profile { login: Login::Password { .. }, .. }, password: None }) = &wanted {
        violations.add("account.password.password", "must not be empty");
    }
    match wanted {
        Some(wanted) => violations.finish().map(|()| wanted),
        None => Err(violations.problem()),
    }
}

/// The profile that a change makes of the current one. Without paths the fields that are present count.
///
/// # Errors
/// `INVALID_FIELD` with everything that is wrong; `PASSWORD_REQUIRED` where the change needs the password and it is not
/// there.
pub(super) fn parse_change(
    current: &Profile,
    change: ProtoAccount,
    paths: &[String],
) -> Result<Wanted, Problem> {
    let mut violations = Violations::default();
    ownership::demand_unchanged(&current.ownership, &change, &mut violations);
    violations.take("account.etag", Etag::parse(&change.etag));
    let merged = merge(current, change, paths, &mut violations);
    let wanted = match parse(merged, Some(current), &mut violations) {
        Some(wanted) => violations.finish().map(|()| wanted)?,
        None => return Err(violations.problem()),
    };
    let needs_password = matches!(wanted.profile.login, Login::Password { .. })
        && (wanted.profile.server != current.server || wanted.profile.login != current.login);
    if needs_password && wanted.password.is_none() {
        let text = "changing host, port, security or user name needs the password in the same call";
        return Err(Problem::new(Reason::PasswordRequired, text));
    }
    Ok(wanted)
}

/// What is wrong with a change by itself, whatever the account is that it is for.
///
/// # Errors
/// `INVALID_FIELD` with everything that is wrong.
pub(super) fn check_change(change: ProtoAccount, paths: &[String]) -> Result<(), Problem> {
    let mut violations = Violations::default();
    violations.take("account.etag", Etag::parse(&change.etag));
    // Somebody's account, whose origin and owner are those that the change names.
    let anybody = ProtoAccount {
        sender_email: "anybody@example.com".to_owned(),
        host: "smtp.example.com".to_owned(),
        origin: change.origin,
        user: change.user.clone(),
        ..ProtoAccount::default()
    };
    let merged = merge_into(anybody, change, paths, &mut violations);
    parse(merged, None, &mut violations);
    violations.finish()
}

/// The current profile as a message, with the fields of the change put in.
fn merge(
    current: &Profile,
    change: ProtoAccount,
    paths: &[String],
    violations: &mut Violations,
) -> ProtoAccount {
    merge_into(super::convert::profile(current), change, paths, violations)
}

/// An account with the fields of the change put in.
fn merge_into(
    mut merged: ProtoAccount,
    change: ProtoAccount,
    paths: &[String],
    violations: &mut Violations,
) -> ProtoAccount {
    let all = paths.iter().any(|path| path == "*");
    for (index, path) in paths.iter().enumerate() {
        // An etag may be named: it is compared, not stored.
        let known = PATHS.contains(&path.as_str())
            || ["*", "etag", "auth"].contains(&path.as_str())
            || limits::is_path(path);
        if !known {
            let description = format!("`{path}` is not a field that can be changed");
            violations.add(format!("update_mask.paths[{index}]"), description);
        }
    }
    let named = |path: &str, present: bool| {
        if paths.is_empty() { present } else { all || paths.iter().any(|p| p == path) }
    };
    let ProtoAccount {
        name: _,
        active,
        sender_name,
        sender_email,
        host,
        port,
        security,
        auth,
        mailings_first,
        // That these two are as they were was seen to before.
        origin: _,
        user: _,
        shared,
        limits,
        check: _,
        parking: _,
        etag: _,
        create_time: _,
        update_time: _,
    } = change;
    if named("mailings_first", mailings_first.is_some()) {
        merged.mailings_first = mailings_first;
    }
    if named("shared", shared.is_some()) {
        merged.shared = shared;
    }
    merged.limits = if named("limits", limits.is_some()) {
        limits
    } else {
        Some(limits::merge(merged.limits, limits, paths))
    };
    if named("active", active.is_some()) {
        merged.active = active;
    }
    if named("sender_name", !sender_name.is_empty()) {
        merged.sender_name = sender_name;
    }
    if named("sender_email", !sender_email.is_empty()) {
        merged.sender_email = sender_email;
    }
    if named("host", !host.is_empty()) {
        merged.host = host;
    }
    if named("port", port != 0) {
        merged.port = port;
    }
    if named("security", security != 0) {
        merged.security = security;
    }
    let auth_named = named("auth", auth.is_some()) || named("none", false) || named("password", false);
    if auth_named {
        merged.auth = auth;
    }
    merged
}

fn parse(account: ProtoAccount, current: Option<&Profile>, violations: &mut Violations) -> Option<Wanted> {
    let ProtoAccount {
        name: _,
        active,
        sender_name,
        sender_email,
        host,
        port,
        security,
        auth,
        mailings_first,
        origin,
        user,
        shared,
        limits,
        check: _,
        parking: _,
        etag,
        create_time: _,
        update_time: _,
    } = account;
    // Only a change compares it; one of a new account says nothing, if it is one.
    violations.take("account.etag", Etag::parse(&etag));
    let ownership = ownership::parse(origin, user, shared, mailings_first, violations);
    let limits = limits::parse(limits, violations);
    let sender_name = fields::text(&sender_name, MAX_SENDER_NAME).map(|name| words::decode(name.trim()));
    let sender_name = violations.take("account.sender_name", sender_name);
    let sender_email = violations.take("account.sender_email", Address::parse(&sender_email));
    let server = parse_server(&host, port, security, sender_email.as_ref(), violations);
    let (login, password) =
        parse_auth(auth, sender_email.as_ref(), current.map(|profile| &profile.login), violations)?;
    Some(Wanted {
        profile: Profile {
            active: active.unwrap_or(true),
            sender_name: sender_name?,
            sender_email: sender_email?,
            server: server?,
            login,
            ownership: ownership?,
            limits,
        },
        password,
    })
}

/// Where the account connects to. Without a host the provider of the address's domain says it; port and security then
/// count where they are given.
fn parse_server(
    host: &str,
    port: u32,
    security: i32,
    sender_email: Option<&Address>,
    violations: &mut Violations,
) -> Option<Server> {
    if host.is_empty()
        && let Some(address) = sender_email
    {
        let Some(provider) = providers::of_domain(address.domain()) else {
            let text = "must be set: the mail provider of the address is not known";
            violations.add("account.host", text);
            return None;
        };
        let known = provider.server();
        if port == 0 && security == 0 {
            return Some(known.clone());
        }
        return parse_server(&known.host, port, security, None, violations);
    }
    let host = violations.take("account.host", parse_host(host));
    let security = parse_security(security, port).ok_or("is not a way to protect a connection");
    let security = violations.take("account.security", security);
    let port = match (port, security) {
        (0, Some(security)) => Some(security.default_port()),
        (0, None) => None,
        _ => violations.take("account.port", u16::try_from(port).map_err(|_| "must be 1 to 65535")),
    };
    Some(Server { host: host?, port: port?, security: security? })
}

fn parse_auth(
    auth: Option<ProtoAuth>,
    sender_email: Option<&Address>,
    current: Option<&Login>,
    violations: &mut Violations,
) -> Option<(Login, Option<Secret>)> {
    let Some(ProtoAuth::Password(password)) = auth else {
        return Some((Login::None, None));
    };
    let username = match (password.username.is_empty(), current) {
        (false, _) => password.username,
        (true, Some(Login::Password { username })) => username.clone(),
        (true, _) => sender_email.map(Address::to_string).unwrap_or_default(),
    };
    let bad = |text: &str, max: usize| text.chars().any(char::is_control) || text.len() > max;
    let mut right = true;
    if bad(&username, MAX_USERNAME_BYTES) {
        right = false;
        violations.add("account.password.username", "must be at most 320 bytes without control characters");
    }
    if bad(&password.password, MAX_PASSWORD_BYTES) {
        right = false;
        violations.add("account.password.password", "must be at most 1,024 bytes without control characters");
    }
    let secret = (!password.password.is_empty()).then(|| Secret::from(password.password));
    right.then_some((Login::Password { username }, secret))
}

/// A host name in A-label form, or an address literal; the egress policy has the last word on where it leads.
fn parse_host(host: &str) -> Result<String, &'static str> {
    if host.chars().any(char::is_control) {
        return Err("must not contain control characters");
    }
    let host = host.trim_matches(' ');
    // A closing dot says that the name is complete, which it is anyway.
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return Err("must not be empty");
    }
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<std::net::IpAddr>() {
        return Ok(address.to_string());
    }
    let ascii = idna::domain_to_ascii_strict(host).map_err(|_| "must be a host name")?;
    if ascii.is_empty() || ascii.len() > MAX_HOST_BYTES {
        return Err("must be a host name of at most 253 bytes");
    }
    Ok(ascii)
}

fn parse_security(security: i32, port: u32) -> Option<Security> {
    Some(match ProtoSecurity::try_from(security).ok()? {
        ProtoSecurity::Unspecified if port == IMPLICIT_TLS_PORT => Security::ImplicitTls,
        ProtoSecurity::Unspecified | ProtoSecurity::Starttls => Security::StartTls,
        ProtoSecurity::ImplicitTls => Security::ImplicitTls,
        ProtoSecurity::None => Security::None,
    })
}

/// The address by which accounts are filtered: that of a mailbox, or an address.
pub(super) fn parse_filter_address(text: &str) -> Result<Address, crate::domain::address::AddressError> {
    Mailbox::parse(text).map(|mailbox| mailbox.address)
}
