// Errors of this package: a config, a checkpoint or a tokenizer that cannot be served as it is.

import { InfraError } from "@open-infra/tensor";

/** A key of config.json is missing, has a wrong type, or asks for what is not implemented. */
export class ConfigError extends InfraError {
  /** The key at fault, dotted for nested ones. */
  readonly key: string;

  constructor(file: string, key: string, problem: string) {
    super("model-config", `${file}: ${key} ${problem}`);
    this.key = key;
  }
}

/**
 * The checkpoint's tensors do not fit its config: missing, unexpected, or of a wrong shape or
 * dtype.
 */
export class WeightsError extends InfraError {
  /** The first tensor at fault. */
  readonly tensor: string;

  constructor(tensor: string, message: string) {
    super("model-weights", message);
    this.tensor = tensor;
  }
}

/** The tokenizer's files are missing, malformed, or use a part that is not implemented. */
export class TokenizerError extends InfraError {
  constructor(message: string, options?: ErrorOptions) {
    super("tokenizer", message, options);
  }
}

/** The model has no chat template, or the template rejects the messages. */
export class ChatTemplateError extends InfraError {
  constructor(message: string, options?: ErrorOptions) {
    super("chat-template", message, options);
  }
}

/** A forward pass was asked for with arguments that do not fit the model or its cache. */
export class ForwardError extends InfraError {
  constructor(message: string) {
    super("forward", message);
  }
}
