//! Metrics as Prometheus reads them: the numbers are those of the letters, whatever was refused, retried or shed.

mod counts;
mod hostile;
mod queue;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::eventually::eventually;
use crate::python_client::{environment, must_succeed};
use crate::support::{Options, PATIENCE, Postroom};

const FROM: &str = "shop@example.com";

/// A server that serves metrics.
async fn start() -> Postroom {
    start_with(Options::default()).await
}

async fn start_with(options: Options) -> Postroom {
    Postroom::start_with(Options { metrics: true, ..options }).await
}

/// What is answered to these bytes, to the end of the connection.
async fn ask(postroom: &Postroom, request: &[u8]) -> String {
    let talk = async {
        let mut stream = TcpStream::connect(&postroom.metrics_address).await.expect("a connection");
        stream.write_all(request).await.expect("written");
        let mut answer = Vec::new();
        // A connection that is reset has ended, too.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).expect("UTF-8")
    };
    timeout(PATIENCE, talk).await.expect("an end in time")
}

/// The text of all metrics.
async fn text(postroom: &Postroom) -> String {
    let answer = ask(postroom, b"GET /metrics HTTP/1.1\r\nHost: postroom\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.to_ascii_lowercase().contains("content-type: application/openmetrics-text"), "{head}");
    body.to_owned()
}

/// Every series with its value.
struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    async fn of(postroom: &Postroom) -> Self {
        let text = text(postroom).await;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let mut series = BTreeMap::new();
        for line in lines {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            let value = value.parse().expect("a number");
            assert!(series.insert(name.to_owned(), value).is_none(), "twice: {name}");
        }
        Self(series)
    }

    /// The value of a series, 0 where it is not there.
    fn get(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or_default()
    }

    /// The sum of all series that begin so.
    fn sum(&self, start: &str) -> f64 {
        self.0.iter().filter(|(name, _)| name.starts_with(start)).map(|(_, value)| value).sum()
    }

    fn names(&self, start: &str) -> Vec<&str> {
        self.0.keys().filter(|name| name.starts_with(start)).map(String::as_str).collect()
    }
}

/// Waits until these series have these values; all of the last look otherwise.
async fn await_values(postroom: &Postroom, expected: &[(&str, f64)]) -> Scrape {
    let what = format!("{expected:?}");
    eventually(&what, async || {
        let scrape = Scrape::of(postroom).await;
        let is = |(series, value): &(&str, f64)| (scrape.get(series) - value).abs() < f64::EPSILON;
        expected.iter().all(is).then_some(scrape)
    })
    .await
}

/// Has the parser of the Prometheus project read a text; it is strict about OpenMetrics.
async fn must_be_valid(text: String) {
    let interpreter = environment().await;
    let checked = tokio::task::spawn_blocking(move || {
        let script = "import sys\n\
                      from prometheus_client.openmetrics.parser import text_string_to_metric_families\n\
                      print(sum(len(f.samples) for f in text_string_to_metric_families(sys.stdin.read())))";
        let mut python = Command::new(interpreter)
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python");
        python.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
        let output = python.wait_with_output().expect("an end");
        must_succeed("the parser of Prometheus", &output);
        let samples = text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), samples.to_string());
    });
    checked.await.expect("valid");
}
