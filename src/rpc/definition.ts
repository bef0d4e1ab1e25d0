/** From a protobuf service description to what grpc-js wants: paths, and how each message is read and written. */
import {
  create,
  fromBinary,
  toBinary,
  type DescMessage,
  type MessageInitShape,
  type MessageShape,
} from '@bufbuild/protobuf';
import type { GenService, GenServiceMethods } from '@bufbuild/protobuf/codegenv2';
import type { ServiceDefinition } from '@grpc/grpc-js';

type Service = GenService<GenServiceMethods>;
type Method = { methodKind: string; input: DescMessage; output: DescMessage };

/** The names of a service's calls that take one message and answer one. */
export type UnaryNames<S extends Service> = {
  [K in keyof S['method']]: S['method'][K]['methodKind'] extends 'unary' ? K : never;
}[keyof S['method']] &
  string;

export type StreamNames<S extends Service> = Exclude<keyof S['method'] & string, UnaryNames<S>>;

export type Input<M extends Method> = MessageShape<M['input']>;
export type InputInit<M extends Method> = MessageInitShape<M['input']>;
export type Output<M extends Method> = MessageShape<M['output']>;
export type OutputInit<M extends Method> = MessageInitShape<M['output']>;

export type { Method, Service };

export function definitionOf(service: Service): ServiceDefinition {
  return Object.fromEntries(
    Object.entries(service.method).map(([name, method]) => [
      name,
      {
        path: `/${service.typeName}/${method.name}`,
        requestStream: method.methodKind !== 'unary',
        responseStream: method.methodKind !== 'unary',
        requestSerialize: writer(method.input),
        requestDeserialize: reader(method.input),
        responseSerialize: writer(method.output),
        responseDeserialize: reader(method.output),
      },
    ]),
  );
}

function writer(schema: DescMessage): (message: unknown) => Buffer {
  return (message) => {
    const bytes = toBinary(schema, create(schema, message as MessageInitShape<DescMessage>));
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
}

function reader(schema: DescMessage): (bytes: Buffer) => MessageShape<DescMessage> {
  return (bytes) => fromBinary(schema, bytes);
}
