//! Plots results as SVG. Both axes are logarithmic, as values differ by powers of ten. The background is white, so that
//! plots are readable on dark pages too.

use std::fmt::Write;

use crate::report::short;

/// The data of one bridge.
pub(crate) struct Series {
    pub(crate) name: String,
    /// The index of the bridge among all, so that it has the same colour in all plots. `None` for the server alone.
    pub(crate) number: Option<usize>,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Series {
    fn colour(&self) -> &'static str {
        self.number.and_then(|number| COLOURS.get(number % COLOURS.len())).unwrap_or(&"#222222")
    }
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
/// Room for names on the right.
const RIGHT: f64 = 170.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 62.0;
/// Height of one bridge's row.
const ROW: f64 = 30.0;
/// The smallest value that is drawn.
const LEAST: f64 = 0.01;
const COLOURS: [&str; 10] =
    ["#0b62c4", "#7a7a7a", "#d1495b", "#2e8b57", "#e08e00", "#7b4fb5", "#008c9e", "#a0522d", "#c2479b", "#5c6b00"];

/// Plots one line for each bridge.
pub(crate) fn lines(title: &str, label: &str, note: &str, all: &[Series]) -> String {
    let mut picture = Picture::new(title, note, HEIGHT);
    let points = || all.iter().flat_map(|series| &series.points);
    let mut stops: Vec<f64> = points().map(|point| point.0).collect();
    stops.sort_by(f64::total_cmp);
    stops.dedup();
    let (Some(&first), Some(&last)) = (stops.first(), stops.last()) else { return picture.end() };
    let across = Scale { from: first, to: last.max(first * 2.0), start: LEFT, end: WIDTH - RIGHT };
    let up = Scale::of(points().map(|point| point.1), HEIGHT - BOTTOM, TOP);
    for value in up.decades() {
        let y = up.place(value);
        picture.grid((LEFT, y), (WIDTH - RIGHT, y));
        picture.text((LEFT - 8.0, y + 4.0), "end", "", &decade(value));
    }
    for &stop in &stops {
        let x = across.place(stop);
        picture.grid((x, TOP), (x, HEIGHT - BOTTOM));
        picture.text((x, HEIGHT - BOTTOM + 18.0), "middle", "", &format!("{stop}"));
    }
    picture.text((f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - BOTTOM + 36.0), "middle", "", label);
    let mut names: Vec<(f64, String, &str)> = Vec::new();
    for series in all {
        let colour = series.colour();
        let places: Vec<(f64, f64)> =
            series.points.iter().map(|point| (across.place(point.0), up.place(point.1))).collect();
        picture.path(&places, colour, series.number.is_none());
        if let (Some(place), Some(point)) = (places.last(), series.points.last()) {
            // If the bridge failed, its line ends before the others.
            let early = if point.0 < last { format!(" at {}", point.0) } else { String::new() };
            names.push((place.1, format!("{} {}{early}", series.name, short(point.1)), colour));
        }
    }
    // Put each name at the end of its line, and move names apart that would overlap.
    names.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut free = TOP;
    let mut room = 15.0 * names.len() as f64;
    for (y, name, colour) in names {
        let y = y.min(HEIGHT - BOTTOM + 15.0 - room).max(free);
        picture.text((WIDTH - RIGHT + 12.0, y + 4.0), "start", colour, &name);
        free = y + 15.0;
        room -= 15.0;
    }
    picture.end()
}

/// Plots one bar for each bridge, from the first to the second of two figures.
pub(crate) fn ranges(title: &str, note: &str, all: &[Series]) -> String {
    let bottom = TOP + ROW * all.len() as f64 + 8.0;
    let mut picture = Picture::new(title, note, bottom + BOTTOM - 14.0);
    let pairs = || all.iter().filter_map(|series| series.points.first().copied());
    let left = LEFT + 60.0;
    let across = Scale::of(pairs().flat_map(|pair| [pair.0, pair.1]), left, WIDTH - RIGHT);
    for value in across.decades() {
        let x = across.place(value);
        picture.grid((x, TOP), (x, bottom));
        picture.text((x, bottom + 18.0), "middle", "", &decade(value));
    }
    for (number, series) in all.iter().enumerate() {
        let colour = series.colour();
        let Some(&(low, high)) = series.points.first() else { continue };
        let y = TOP + ROW * (number as f64 + 0.5) + 4.0;
        picture.text((left - 10.0, y + 4.0), "end", colour, &series.name);
        picture.path(&[(across.place(low), y), (across.place(high), y)], colour, false);
        let figures = format!("{} to {}", short(low), short(high));
        picture.text((WIDTH - RIGHT + 12.0, y + 4.0), "start", colour, &figures);
    }
    picture.end()
}

/// A logarithmic axis.
struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

impl Scale {
    /// Makes a scale from the power of ten below all values to the one above.
    fn of(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        let (least, most) = values.fold((f64::MAX, LEAST), |(least, most), value| {
            let value = value.max(LEAST);
            (least.min(value), most.max(value))
        });
        let from = 10_f64.powf(least.min(most).log10().floor());
        let to = 10_f64.powf(most.log10().ceil()).max(from * 10.0);
        Self { from, to, start, end }
    }

    fn place(&self, value: f64) -> f64 {
        let part = (value.max(LEAST) / self.from).log10() / (self.to / self.from).log10();
        self.start + part * (self.end - self.start)
    }

    fn decades(&self) -> Vec<f64> {
        let count = (self.to / self.from).log10().round() as i32;
        (0..=count).map(|power| self.from * 10_f64.powi(power)).collect()
    }
}

struct Picture {
    text: String,
}

impl Picture {
    fn new(title: &str, note: &str, height: f64) -> Self {
        let mut this = Self {
            text: format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
                 font-size=\"12\">\n<title>{0}</title>\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
                 <text x=\"16\" y=\"24\" font-size=\"15\" font-weight=\"bold\" fill=\"#222222\">{0}</text>\n",
                plain(title)
            ),
        };
        let _ = writeln!(
            this.text,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" font-size=\"10\" fill=\"#777777\">{}</text>",
            WIDTH - 12.0,
            height - 8.0,
            plain(note)
        );
        this
    }

    fn grid(&mut self, from: (f64, f64), to: (f64, f64)) {
        let _ = writeln!(
            self.text,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#dddddd\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    fn text(&mut self, at: (f64, f64), anchor: &str, colour: &str, text: &str) {
        let colour = if colour.is_empty() { "#444444" } else { colour };
        let _ = writeln!(
            self.text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{}</text>",
            at.0,
            at.1,
            plain(text)
        );
    }

    fn path(&mut self, points: &[(f64, f64)], colour: &str, dashed: bool) {
        let list: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let pattern = if dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let _ = writeln!(
            self.text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.5\"{pattern}/>",
            list.join(" ")
        );
        for (x, y) in points {
            let _ = writeln!(self.text, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>");
        }
    }

    fn end(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}

fn decade(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.0}M", value / 1e6),
        value if value >= 1e3 => format!("{:.0}k", value / 1e3),
        value if value >= 0.999 => format!("{value:.0}"),
        value => format!("{value:.2}").trim_end_matches('0').to_owned(),
    }
}

fn plain(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
