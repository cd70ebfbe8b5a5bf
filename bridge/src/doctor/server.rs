//! The server that an environment leads the client to. Pure.

use super::variables::Variables;
use crate::config::DEFAULT_PREFIX;

/// Where Goma's clients go without a word about it.
const DEFAULT_HOST: &str = "goma.chromium.org";
/// Looked at in this order, whatever the server is.
pub const PROXY_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether by TLS.
    pub tls: bool,
    /// Before `/ping`.
    pub prefix: String,
    /// After it.
    pub extra: String,
    /// The `Authorization` that is shown.
    pub authorization: Option<String>,
    /// A CA (PEM) that is trusted besides.
    pub ca_pem: Option<String>,
    /// Host and port of a proxy in between.
    pub proxy: Option<(String, u16)>,
}

impl Server {
    /// By these variables; every value is taken as it is. `authorization`: what the client would show.
    pub fn of(variables: &Variables, authorization: Option<String>, ca_pem: Option<String>) -> Self {
        let tls = variables.is_on("GOMA_USE_SSL", true);
        // goma_ctl.py takes 80 without TLS.
        let default_port = if tls { 443 } else { 80 };
        Self {
            host: variables.text("GOMA_SERVER_HOST").unwrap_or(DEFAULT_HOST).to_owned(),
            port: variables.port("GOMA_SERVER_PORT").unwrap_or(default_port),
            tls,
            prefix: variables.text("GOMA_URL_PATH_PREFIX").unwrap_or(DEFAULT_PREFIX).to_owned(),
            extra: variables.text("GOMA_RPC_EXTRA_PARAMS").unwrap_or_default().to_owned(),
            authorization,
            ca_pem,
            proxy: proxy(variables),
        }
    }

    /// http_proxy, as goma_ctl.py would have the client call it; a proxy of the environment is left out, as
    /// that is a matter of its own.
    pub fn through_http_proxy(&self, port: u16) -> Self {
        Self { host: "127.0.0.1".to_owned(), port, tls: false, proxy: None, ..self.clone() }
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The address of a call, for people.
    pub fn url(&self, call: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}{call}{}", self.address(), self.prefix, self.extra)
    }

    /// What the request line names.
    pub fn target(&self, call: &str) -> String {
        match &self.proxy {
            Some(_) if !self.tls => self.url(call),
            _ => format!("{}{call}{}", self.prefix, self.extra),
        }
    }

    /// Whether it is on this machine.
    pub fn is_local(&self) -> bool {
        self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

fn proxy(variables: &Variables) -> Option<(String, u16)> {
    if let Some(host) = variables.text("GOMA_PROXY_HOST") {
        return Some((host.to_owned(), variables.port("GOMA_PROXY_PORT").unwrap_or(80)));
    }
    let address = variables.first(&PROXY_VARIABLES)?;
    let address = address.split_once("://").map_or(address, |(_, rest)| rest).trim_end_matches('/');
    let address = address.rsplit_once('@').map_or(address, |(_, rest)| rest);
    match motefarm_net::dial::split_address(address) {
        Ok((host, port)) => Some((host.to_owned(), port)),
        Err(_) => Some((address.to_owned(), 80)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(pairs: &[(&str, &str)]) -> Server {
        let variables = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Server::of(&variables, None, None)
    }

    #[test]
    fn the_server_is_the_one_that_the_client_would_call() {
        let own = [("GOMA_SERVER_HOST", "127.0.0.1"), ("GOMA_SERVER_PORT", "5050"), ("GOMA_USE_SSL", "false")];
        assert_eq!(server(&own).url("/ping"), "http://127.0.0.1:5050/cxx-compiler-service/ping");
        assert!(server(&own).is_local());
        assert_eq!(server(&[]).url("/e"), "https://goma.chromium.org:443/cxx-compiler-service/e");
        assert_eq!(server(&own[2..]).port, 80);
        let pasted =
            [("GOMA_URL_PATH_PREFIX", ":5050/x"), ("GOMA_RPC_EXTRA_PARAMS", "?prod"), ("GOMA_SERVER_PORT", "no")];
        assert_eq!(server(&pasted).target("/ping"), ":5050/x/ping?prod");
        assert_eq!(server(&own).through_http_proxy(19080).address(), "127.0.0.1:19080");
    }

    #[test]
    fn a_proxy_is_called_by_the_whole_address_unless_by_tls() {
        let own = ("GOMA_USE_SSL", "false");
        let through = server(&[own, ("GOMA_SERVER_HOST", "h"), ("https_proxy", "http://me:secret@proxy:3128/")]);
        assert_eq!(through.proxy, Some(("proxy".into(), 3128)));
        assert_eq!(through.target("/e"), "http://h:80/cxx-compiler-service/e");
        let named = server(&[("GOMA_PROXY_HOST", "p"), ("GOMA_PROXY_PORT", "8080"), ("all_proxy", "other:1")]);
        assert_eq!(
            (named.proxy.clone(), named.target("/e").as_str()),
            (Some(("p".into(), 8080)), "/cxx-compiler-service/e")
        );
    }
}
