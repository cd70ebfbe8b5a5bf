//! Aligned columns for people.

/// Rows under a header, each column as wide as its widest cell and two spaces apart, without
/// trailing spaces.
pub(crate) fn render<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = header.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut lines = vec![line(&header.map(str::to_owned), &widths)];
    lines.extend(rows.iter().map(|row| line(row, &widths)));
    lines.join("\n")
}

fn line<const N: usize>(cells: &[String; N], widths: &[usize; N]) -> String {
    let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
    padded.join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["alice-linux-amd64-0".to_owned(), "ready".to_owned()], ["b".to_owned(), String::new()]];
        assert_eq!(render(["NAME", "STATE"], &rows), "NAME                 STATE\nalice-linux-amd64-0  ready\nb");
    }
}
