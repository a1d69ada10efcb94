//! Writes the generated files of the Helm chart and its documentation.

use weir_tests::chart;

fn main() {
    for (path, text) in chart::files().unwrap() {
        let path = chart::root().join(path);
        if std::fs::read_to_string(&path).ok().as_deref() == Some(&text) {
            continue;
        }
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        println!("{}", path.display());
    }
}
