//! Writes the definitions as YAML, and those of the chart beside them, which Helm keeps:
//! `cargo run -p ballast-crds --example crds -- crds/yaml charts/ballast-crds/templates`.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let directory = arguments.next().ok_or("name the directory to write to")?;
    let chart = arguments.next();
    std::fs::create_dir_all(&directory)?;
    for mut definition in ballast_crds::definitions() {
        let name = format!("{}.yaml", definition.spec.names.plural);
        std::fs::write(directory.join(&name), serde_saphyr::to_string(&definition)?)?;
        println!("{}", directory.join(&name).display());
        if let Some(chart) = &chart {
            let keep = ("helm.sh/resource-policy".to_owned(), "keep".to_owned());
            definition.metadata.annotations.get_or_insert_default().extend([keep]);
            std::fs::write(chart.join(&name), serde_saphyr::to_string(&definition)?)?;
            println!("{}", chart.join(&name).display());
        }
    }
    Ok(())
}
