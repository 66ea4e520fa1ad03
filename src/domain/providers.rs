//! The table of well-known mail providers (`providers.toml`): where their customers submit mail, how they log in, what
//! to know. It is compiled in; nothing here asks the network.

use std::sync::LazyLock;

use serde::Deserialize;

use super::account::{Security, Server};

static PROVIDERS: LazyLock<Vec<Provider>> = LazyLock::new(|| {
    let table: Table =
        toml::from_str(include_str!("providers.toml")).expect("a test parses the table that is compiled in");
    table.provider.into_iter().map(Provider::new).collect()
});

/// Every provider, by id.
#[must_use]
pub fn all() -> &'static [Provider] {
    &PROVIDERS
}

/// The provider whose customers have addresses of `domain`, which is lower case and in A-label form, as
/// [`Address::domain`](super::address::Address::domain) gives it. Subdomains are other domains.
#[must_use]
pub fn of_domain(domain: &str) -> Option<&'static Provider> {
    all().iter().find(|provider| provider.domains.iter().any(|own| own == domain))
}

/// The provider whose customers submit mail to `host`.
#[must_use]
pub fn of_host(host: &str) -> Option<&'static Provider> {
    all().iter().find(|provider| provider.server.host.eq_ignore_ascii_case(host))
}

/// What a provider takes as the user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsernameForm {
    /// The full address.
    Address,
    /// The part before the `@`.
    LocalPart,
    /// Neither; the advice says what.
    Other,
}

/// A mail provider, or one region of it.
#[derive(Debug)]
pub struct Provider {
    id: String,
    name: String,
    domains: Vec<String>,
    server: Server,
    username_form: UsernameForm,
    files_sent_copies: bool,
    limits: String,
    advice: String,
    source: String,
}

impl Provider {
    fn new(row: Row) -> Self {
        let Row {
            id,
            name,
            domains,
            host,
            port,
            security,
            username_form,
            files_sent_copies,
            limits,
            advice,
            source,
        } = row;
        let security = match security {
            Protection::ImplicitTls => Security::ImplicitTls,
            Protection::Starttls => Security::StartTls,
        };
        let server = Server { host, port, security };
        Self { id, name, domains, server, username_form, files_sent_copies, limits, advice, source }
    }

    /// A short name for programs: lower case letters, digits, hyphens.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The name for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Domains of its customers' addresses, lower case, A-labels; none where customers bring their own.
    #[must_use]
    pub fn domains(&self) -> &[String] {
        &self.domains
    }

    /// Where it takes mail; never in plain text.
    #[must_use]
    pub const fn server(&self) -> &Server {
        &self.server
    }

    /// What it takes as the user name.
    #[must_use]
    pub const fn username_form(&self) -> UsernameForm {
        self.username_form
    }

    /// Whether it files what is sent through SMTP into the sent folder by itself; a copy put there would be a double.
    #[must_use]
    pub const fn files_sent_copies(&self) -> bool {
        self.files_sent_copies
    }

    /// Known limits in one line, empty where none are known.
    #[must_use]
    pub fn limits(&self) -> &str {
        &self.limits
    }

    /// What a person should do before the first letter, at most 300 characters.
    #[must_use]
    pub fn advice(&self) -> &str {
        &self.advice
    }

    /// Where all this is from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    provider: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    name: String,
    domains: Vec<String>,
    host: String,
    port: u16,
    security: Protection,
    username_form: UsernameForm,
    files_sent_copies: bool,
    limits: String,
    advice: String,
    source: String,
}

/// [`Security`] without plain text.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Protection {
    ImplicitTls,
    Starttls,
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{Provider, UsernameForm, all, of_domain};
    use crate::domain::account::Security;
    use crate::domain::address::Address;

    const MIN_PROVIDERS: usize = 45;
    const MAX_ADVICE_CHARS: usize = 300;
    /// Ports of submission; each is also one that the egress rules allow at first.
    const PORTS: [u16; 4] = [25, 465, 587, 2525];

    /// What is wrong with one row.
    fn violations(provider: &Provider) -> Vec<String> {
        let id = provider.id();
        let is_slug = !id.is_empty()
            && id.split('-').all(|word| {
                !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            });
        let canonical = |domain: &str| {
            Address::parse(&format!("x@{domain}")).is_ok_and(|address| address.domain() == domain)
        };
        let server = provider.server();
        let one_line = |text: &str| !text.contains(char::is_control) && text.trim() == text;
        let advice = provider.advice();
        let rules = [
            ("id is a slug", is_slug),
            ("name", !provider.name().is_empty() && one_line(provider.name())),
            ("domains are canonical", provider.domains().iter().all(|domain| canonical(domain))),
            ("host", canonical(&server.host) && server.host.contains('.')),
            ("port", PORTS.contains(&server.port)),
            ("465 is implicit TLS", (server.port == 465) == (server.security == Security::ImplicitTls)),
            ("never plain text", server.security != Security::None),
            ("limits", one_line(provider.limits())),
            ("advice", !advice.is_empty() && one_line(advice) && advice.chars().count() <= MAX_ADVICE_CHARS),
            ("source", !provider.source().is_empty() && one_line(provider.source())),
        ];
        rules.iter().filter(|(_, holds)| !holds).map(|(rule, _)| format!("{id}: {rule}")).collect()
    }

    #[test]
    fn the_table_keeps_its_rules() {
        assert!(all().len() >= MIN_PROVIDERS, "{} providers", all().len());
        let wrong: Vec<_> = all().iter().flat_map(violations).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(all().is_sorted_by(|a, b| a.id() < b.id()), "sorted by id, each id once");

        let mut owners = HashMap::new();
        for provider in all() {
            for domain in provider.domains() {
                let other = owners.insert(domain, provider.id());
                assert_eq!(other, None, "{domain} belongs to {} too", provider.id());
            }
        }
    }

    #[test]
    fn providers_are_found_by_their_domains() {
        for (domain, id) in [
            ("gmail.com", Some("gmail")),
            ("hotmail.co.uk", Some("outlook")),
            ("bk.ru", Some("mail-ru")),
            ("web.de", Some("web-de")),
            ("example.com", None),
            ("mail.gmail.com", None),
            ("", None),
        ] {
            assert_eq!(of_domain(domain).map(Provider::id), id, "{domain}");
        }
        let address = Address::parse("Ann@GMX.NET").expect("an address");
        assert_eq!(of_domain(address.domain()).map(Provider::id), Some("gmx-net"));
    }

    #[test]
    fn a_row_says_what_it_says() {
        let icloud = of_domain("icloud.com").expect("in the table");
        assert_eq!((icloud.server().host.as_str(), icloud.server().port), ("smtp.mail.me.com", 587));
        assert_eq!(icloud.server().security, Security::StartTls);
        assert_eq!(icloud.username_form(), UsernameForm::Address);
        assert!(icloud.files_sent_copies());
        assert_eq!(of_domain("web.de").map(Provider::username_form), Some(UsernameForm::LocalPart));
    }
}
