//! A line for each device: whose its memory is, how busy and how hot it is.

use ratatui::text::{Line, Span};

use super::super::paint::Tone;
use super::super::{frame, text};
use super::Picture;
use crate::run::observer::DeviceGauge;
use crate::units::Bytes;

/// Returns a line for each of the first `shown` devices.
pub(super) fn lines(picture: &Picture<'_>, shown: usize, columns: usize) -> Vec<Line<'static>> {
    let name = |gauge: &DeviceGauge| frame::device_name(picture.view, gauge);
    let gauges = &picture.gauges[..shown];
    let label = gauges.iter().map(|gauge| text::width(&name(gauge))).max().unwrap_or(0).min(columns / 4);
    let bar = (columns / 6).clamp(6, 30);
    let line = |gauge: &DeviceGauge| {
        let name = text::fit_middle(&name(gauge), label).into_owned();
        let mut line = Line::raw(format!("{}  ", text::pad(&name, label)));
        memory(picture, gauge, bar).into_iter().for_each(|part| line.push_span(part));
        let room = columns.saturating_sub(label + bar + 4);
        line.push_span(format!("  {}", text::fit(&frame::device_notes(gauge), room)));
        line
    };
    gauges.iter().map(line).collect()
}

/// Draws a device's memory: what others hold `═`, what ours do `━`, what is promised beyond it `╌`, what is free `─`.
fn memory(picture: &Picture<'_>, gauge: &DeviceGauge, width: usize) -> Vec<Span<'static>> {
    let used = gauge.used.unwrap_or_default();
    // Whose it is may be hidden from us; it is held all the same.
    let ours = gauge.ours.unwrap_or(used).min(used);
    let others = used - ours;
    let columns = |bytes: Bytes| {
        let columns = u128::from(bytes.0) * width as u128 / u128::from(gauge.total.0.max(1));
        usize::try_from(columns).unwrap_or(width).min(width)
    };
    // Cumulated, so that the parts never add up to more than there is.
    let ends = [others, others + ours, others + ours.max(gauge.promised)].map(columns);
    let parts = [
        ("═", Tone::Uneasy, ends[0]),
        ("━", Tone::Active, ends[1] - ends[0]),
        ("╌", Tone::Uneasy, ends[2] - ends[1]),
        ("─", Tone::Faint, width - ends[2]),
    ];
    parts.into_iter().map(|(mark, tone, columns)| Span::styled(mark.repeat(columns), picture.style(tone))).collect()
}
