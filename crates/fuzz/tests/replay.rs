//! Replays `fuzz/corpus`: what the fuzzer kept, and every finding that it ever made.

use exeunt_fuzz_targets::TARGETS;
use std::path::Path;

#[test]
fn every_target_takes_every_input_of_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, target) in TARGETS {
        let mut inputs = 0;
        for entry in std::fs::read_dir(corpus.join(name)).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            target(&std::fs::read(path).unwrap());
            inputs += 1;
        }
        println!("{name}: {inputs} inputs");
        assert!(inputs > 0, "{name} has no corpus");
    }
}

#[test]
fn every_target_has_a_binary_and_takes_nothing_and_everything() {
    for (name, target) in TARGETS {
        let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../fuzz/fuzz_targets/{name}.rs"));
        assert!(binary.exists(), "{name}");
        target(&[]);
        for byte in [0, 0x5a, 0xff] {
            for length in [1, 7, 64, 288, 5000] {
                target(&vec![byte; length]);
            }
        }
    }
}
