//! What the process takes, by the names that all programs use. Told on Linux.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

/// This process.
#[derive(Debug)]
pub(super) struct Process;

#[cfg(not(target_os = "linux"))]
impl Collector for Process {
    fn encode(&self, _encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        Ok(())
    }
}

#[cfg(target_os = "linux")]
impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        use prometheus_client::encoding::EncodeMetric as _;
        use prometheus_client::metrics::MetricType;
        use prometheus_client::metrics::counter::ConstCounter;
        use prometheus_client::registry::Unit;

        // What the system does not tell is left out.
        let Ok(usage) = linux::usage() else { return Ok(()) };
        let cpu = ConstCounter::new(usage.cpu_seconds);
        let help = "Time of processors, of the user and of the system.";
        let (name, unit) = ("process_cpu", Unit::Seconds);
        cpu.encode(encoder.encode_descriptor(name, help, Some(&unit), MetricType::Counter)?)?;
        let mut gauge = |name: &str, unit: Option<Unit>, help: &str, value: f64| {
            encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?.encode_gauge(&value)
        };
        gauge("process_resident_memory", Some(Unit::Bytes), "Memory in use.", usage.resident_bytes)?;
        gauge("process_virtual_memory", Some(Unit::Bytes), "Addresses in use.", usage.virtual_bytes)?;
        gauge("process_start_time", Some(Unit::Seconds), "When it began, since 1970.", usage.start_seconds)?;
        gauge("process_open_fds", None, "Open files, sockets among them.", usage.open_files)?;
        gauge("process_max_fds", None, "How many there may be.", usage.max_files)
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use procfs::process::{LimitValue, Process};
    use procfs::{ProcResult, boot_time_secs, page_size, ticks_per_second};

    pub(super) struct Usage {
        pub(super) cpu_seconds: f64,
        pub(super) resident_bytes: f64,
        pub(super) virtual_bytes: f64,
        pub(super) start_seconds: f64,
        pub(super) open_files: f64,
        pub(super) max_files: f64,
    }

    pub(super) fn usage() -> ProcResult<Usage> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks = float(ticks_per_second());
        Ok(Usage {
            cpu_seconds: float(stat.utime + stat.stime) / ticks,
            resident_bytes: float(stat.rss) * float(page_size()),
            virtual_bytes: float(stat.vsize),
            start_seconds: float(boot_time_secs()?) + float(stat.starttime) / ticks,
            open_files: float(u64::try_from(process.fd_count()?).unwrap_or(u64::MAX)),
            max_files: match process.limits()?.max_open_files.soft_limit {
                LimitValue::Value(limit) => float(limit),
                LimitValue::Unlimited => f64::INFINITY,
            },
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "metrics are floats; 53 bits are enough for all of these")]
    fn float(number: u64) -> f64 {
        number as f64
    }
}
