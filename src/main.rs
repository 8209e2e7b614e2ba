//! The `trainyard` command.

fn main() -> std::process::ExitCode {
    trainyard::cli::main()
}
