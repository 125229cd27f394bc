//! The chart of a rehearsal: how many nodes have the image at which time, a curve for each run.

use std::fs;
use std::io;
use std::path::Path;

use plotters::chart::SeriesLabelPosition;
use plotters::prelude::*;

use super::report::Rehearsal;

const SIZE: (u32, u32) = (900, 480);

/// Told apart also by who sees no red or green (Okabe and Ito).
const COLOURS: [RGBColor; 3] =
    [RGBColor(0, 114, 178), RGBColor(230, 159, 0), RGBColor(204, 121, 167)];

/// Writes the chart: the file before, or the new one, whole.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn write(path: &Path, rehearsal: &Rehearsal) -> io::Result<()> {
    let mut svg = String::new();
    draw(rehearsal, &mut svg).map_err(|error| io::Error::other(error.to_string()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    fs::write(file.path(), svg)?;
    fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn draw(rehearsal: &Rehearsal, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let latest = rehearsal.cases.iter().filter_map(|case| case.times.last()).copied();
    let end = latest.fold(rehearsal.ideal_s, f64::max) * 1.1;
    let nodes = f64::from(rehearsal.nodes);
    let title = format!(
        "{}: nodes that have it (from the server alone: {:.0} s)",
        rehearsal.image, rehearsal.without_swarm_s
    );
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .caption(title, ("sans-serif", 20))
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..end, 0.0..nodes * 1.02)?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .y_desc("nodes")
        .label_style(("sans-serif", 15))
        .light_line_style(WHITE)
        .draw()?;
    let ideal = rehearsal.ideal_s;
    chart
        .draw_series(LineSeries::new([(ideal, 0.0), (ideal, nodes)], BLACK.mix(0.4)))?
        .label(format!("one node alone, {ideal:.1} s"))
        .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], BLACK.mix(0.4)));
    for (case, colour) in rehearsal.cases.iter().zip(COLOURS) {
        chart
            .draw_series(LineSeries::new(steps(&case.times, end), colour.stroke_width(2)))?
            .label(case.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(("sans-serif", 15))
        .background_style(WHITE.mix(0.8))
        .draw()?;
    root.present()?;
    Ok(())
}

/// A curve that goes up by one at each time, and on to the end.
fn steps(times: &[f64], end: f64) -> Vec<(f64, f64)> {
    let mut points = vec![(0.0, 0.0)];
    for (index, &time) in times.iter().enumerate() {
        points.extend([(time, index as f64), (time, index as f64 + 1.0)]);
    }
    points.push((end, times.len() as f64));
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_goes_up_by_one_for_each_node() {
        let expect = [(0.0, 0.0), (2.0, 0.0), (2.0, 1.0), (3.0, 1.0), (3.0, 2.0), (9.0, 2.0)];
        assert_eq!(steps(&[2.0, 3.0], 9.0), expect);
        assert_eq!(steps(&[], 9.0), [(0.0, 0.0), (9.0, 0.0)]);
    }
}
