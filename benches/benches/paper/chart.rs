//! Lines drawn as SVG.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

/// A name and its points.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Line {
    pub(crate) fn new(name: &'static str) -> Line {
        Line { name, points: Vec::new() }
    }
}

/// Told apart by those who don't see colours well, too (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn area(file: &Path) -> Result<Area<'_>, Box<dyn Error>> {
    let area = SVGBackend::new(file, (720, 440)).into_drawing_area();
    area.fill(&WHITE)?;
    Ok(area)
}

/// Draws each line and its name.
macro_rules! draw {
    ($chart:expr, $lines:expr, $position:expr) => {{
        for (line, colour) in $lines.iter().zip(COLOURS) {
            $chart
                .draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))?
                .label(line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        $chart
            .configure_series_labels()
            .position($position)
            .label_font(("sans-serif", 13))
            .background_style(WHITE.mix(0.85))
            .draw()?;
    }};
}

/// Efficiency over KiB, on a logarithmic scale.
pub(crate) fn efficiency(lines: &[Line], file: &Path) -> Result<(), Box<dyn Error>> {
    let area = area(file)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Load balancing efficiency (mean load over hottest), S = 30, N = 3", ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(48)
        .build_cartesian_2d((0.5..64.0).log_scale().base(2.0), 0.4..1.0)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("metadata at each node, KiB").draw()?;
    draw!(chart, lines, SeriesLabelPosition::LowerRight);
    area.present()?;
    Ok(())
}

/// Fractions over the hours of a day, and the load.
pub(crate) fn day(lines: &[Line], load: &[(f64, f64)], file: &Path) -> Result<(), Box<dyn Error>> {
    let area = area(file)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Nodes out of balance (15 % or more from the mean load)", ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(48)
        .right_y_label_area_size(48)
        .build_cartesian_2d(0.0..23.5, 0.0..0.5)?
        .set_secondary_coord(0.0..23.5, 0.0..1.0);
    chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("hour").y_desc("fraction of nodes").draw()?;
    chart.configure_secondary_axes().y_desc("load over peak").draw()?;
    let grey = RGBColor(150, 150, 150);
    chart
        .draw_secondary_series(AreaSeries::new(load.iter().copied(), 0.0, grey.mix(0.2)))?
        .label("load (right scale)")
        .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 18, y + 4)], grey.mix(0.2).filled()));
    draw!(chart, lines, SeriesLabelPosition::UpperLeft);
    area.present()?;
    Ok(())
}
