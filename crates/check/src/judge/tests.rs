use super::*;
use crate::rules;

#[test]
fn right() {
    for situation in situations::all() {
        let trial = bench::run(&situation, twist::Twist::default, 0).unwrap();
        let view = view::View::new(&trial);
        for rule in rules::all().filter(|rule| rule.scenarios.iter().any(|name| name == situation.name)) {
            let Some(checker) = checkers::of(&rule.id) else {
                println!("no checker {}", rule.id);
                continue;
            };
            println!("{} {} {:?}", situation.name, rule.id, checker(&view));
        }
    }
}
