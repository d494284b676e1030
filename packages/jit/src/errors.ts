// What can go wrong between an operation and its launch, as errors that say what to do about it.

import { InfraError } from "@open-infra/tensor";

/** The operation has no implementation for these arguments on the chosen backend. */
export class UnsupportedError extends InfraError {
  constructor(operation: string, backend: string, reason: string) {
    super("unsupported", `${operation} cannot run on backend '${backend}': ${reason}`);
  }
}

/** An option or environment variable has a value that is not allowed. */
export class JitOptionError extends InfraError {
  constructor(option: string, got: string, allowed: string) {
    super("jit-option", `${option} is ${got}; expected ${allowed}`);
  }
}

/** How to get a C compiler, by system. */
export const compilerAdvice: string =
  "Install one: Debian and Ubuntu 'apt-get install gcc libc6-dev', Fedora 'dnf install gcc', " +
  "macOS 'xcode-select --install'; or name one in the variable CC.";

/** No usable C compiler; the message lists what was tried and how to get one. */
export class CompilerMissingError extends InfraError {
  /** Each command that was tried, and why it will not do. */
  readonly tried: readonly string[];

  constructor(tried: readonly string[] = []) {
    const list = tried.length === 0 ? "CC, cc, gcc, clang" : tried.join("; ");
    super("compiler-missing", `No C compiler found (${list}). ${compilerAdvice}`);
    this.tried = tried;
  }
}

/** The compiler refused a kernel. `output` is what it printed. */
export class CompileError extends InfraError {
  readonly kernel: string;
  readonly output: string;

  constructor(kernel: string, problem: string, output: string) {
    const hint = /fatal error: (std|pthread|string|math|immintrin)\S*\.h/.test(output)
      ? `\nThe C library's headers are missing. ${compilerAdvice}`
      : "";
    super("compile", `kernel ${kernel}: ${problem}${output ? `\n${output.trimEnd()}` : ""}${hint}`);
    this.kernel = kernel;
    this.output = output;
  }
}

/** The directory of compiled kernels cannot be used. */
export class CacheError extends InfraError {
  readonly dir: string;

  constructor(dir: string, problem: string, options?: ErrorOptions) {
    super(
      "jit-cache",
      `The kernel cache ${dir} ${problem}. Set OPEN_INFRA_JIT_CACHE_DIR to a directory that can ` +
        "be written and whose files may be executed.",
      options,
    );
    this.dir = dir;
  }
}

/** A bundle of kernels is damaged, or not one. */
export class BundleError extends InfraError {
  readonly file: string;

  constructor(file: string, problem: string, options?: ErrorOptions) {
    super("jit-bundle", `${file} is not a usable kernel bundle: ${problem}`, options);
    this.file = file;
  }
}

/** A device was used after disposal, or its threads or their memory could not be had. */
export class DeviceError extends InfraError {
  constructor(message: string, options?: ErrorOptions) {
    super("device", message, options);
  }
}
