//! Writes the definitions as YAML: `cargo run -p ballast-crds --example crds -- crds/yaml`.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args().nth(1).ok_or("name the directory to write to")?);
    std::fs::create_dir_all(&directory)?;
    for definition in ballast_crds::definitions() {
        let path = directory.join(format!("{}.yaml", definition.spec.names.plural));
        std::fs::write(&path, serde_saphyr::to_string(&definition)?)?;
        println!("{}", path.display());
    }
    Ok(())
}
