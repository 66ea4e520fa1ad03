//! What was measured: a table for people, JSON for programs.

use std::fmt::Write as _;

use serde::Serialize;

/// Who was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    Postroom,
    Postfix,
    Nodemailer,
    SmtpSource,
    Raw,
}

impl Peer {
    const ALL: [Self; 5] = [Self::Postroom, Self::Postfix, Self::Nodemailer, Self::SmtpSource, Self::Raw];

    const fn title(self) -> &'static str {
        match self {
            Self::Postroom => "Postroom",
            Self::Postfix => "Postfix",
            Self::Nodemailer => "Nodemailer",
            Self::SmtpSource => "smtp-source",
            Self::Raw => "raw client",
        }
    }
}

/// Which figure is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// One figure of one of them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) who: Peer,
    pub(crate) value: f64,
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    /// The measure it belongs to.
    pub(crate) measure: &'static str,
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    pub(crate) figures: Vec<Figure>,
}

impl Line {
    pub(crate) fn new(
        measure: &'static str,
        what: impl Into<String>,
        unit: &'static str,
        better: Better,
        figures: &[(Peer, f64)],
    ) -> Self {
        let figures = figures.iter().map(|&(who, value)| Figure { who, value }).collect();
        Self { measure, what: what.into(), unit, better, figures }
    }

    /// The figure of one of them.
    pub(crate) fn of(&self, peer: Peer) -> Option<f64> {
        self.figures.iter().find(|figure| figure.who == peer).map(|figure| figure.value)
    }

    /// How many times as good as Postfix Postroom is; without Postfix, as the first other one.
    fn ratio(&self) -> Option<(f64, Peer)> {
        let ours = self.of(Peer::Postroom)?;
        let others = [Peer::Postfix, Peer::Raw, Peer::Nodemailer, Peer::SmtpSource];
        let (theirs, peer) = others.into_iter().find_map(|peer| Some((self.of(peer)?, peer)))?;
        let ratio = match self.better {
            Better::Higher => ours / theirs,
            Better::Lower => theirs / ours,
        };
        ratio.is_finite().then_some((ratio, peer))
    }
}

/// The table, in Markdown.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut rows = vec![vec!["what".to_owned(), "unit".to_owned()]];
    rows[0].extend(Peer::ALL.map(|peer| peer.title().to_owned()));
    rows[0].push("times as good".to_owned());
    for line in lines {
        let mut row = vec![line.what.clone(), line.unit.to_owned()];
        row.extend(Peer::ALL.map(|peer| line.of(peer).map(number).unwrap_or_default()));
        row.push(
            line.ratio()
                .map_or_else(String::new, |(ratio, peer)| format!("{} x {}", number(ratio), peer.title())),
        );
        rows.push(row);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Figures stand at the right.
            let cell = if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
            let _ = write!(text, "| {cell} ");
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                let rule = "-".repeat(*width);
                let _ = write!(text, "|{}{}", rule, if column < 2 { "--" } else { "-:" });
            }
            text.push_str("|\n");
        }
    }
    text
}

/// Three digits that say something.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
