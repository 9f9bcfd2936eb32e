/*
 * Nest's side of `consume.ts`, and no more than that: a handler marked with `@Consumes(spec)`
 * becomes a reader of the durable. What it returns is the answer, what it throws keeps its class
 * (`KeepError`), so that `Reject` and `RetryAfter` mean here what they mean there.
 *
 *   @Consumes(commandsOf('ipam'))
 *   obey(@Payload() delivery: Delivery): Promise<Answer> { … }
 *
 *   const app = await NestFactory.createMicroservice(IpamModule, { strategy: new JetStreamStrategy({ bus }) });
 *   app.useGlobalFilters(new KeepError());
 */
import { Catch } from '@nestjs/common';
import type { RpcExceptionFilter } from '@nestjs/common';
import { BaseRpcContext, EventPattern, Server } from '@nestjs/microservices';
import type { CustomTransportStrategy, MessageHandler } from '@nestjs/microservices';
import { isObservable, lastValueFrom, throwError } from 'rxjs';
import type { Observable } from 'rxjs';
import { noLog } from './connect.ts';
import type { Bus, BusLog } from './connect.ts';
import { consume } from './consume.ts';
import type { Consumption, ConsumeSettings, Delivery, Settled } from './consume.ts';
import type { ConsumerSpec } from './topology.ts';

interface Extras {
  readonly spec?: ConsumerSpec;
  readonly settings?: ConsumeSettings;
}

/** Marks a method of a controller as the reader of a durable. Its first parameter, `@Payload()`, is the `Delivery`. */
export const Consumes = (spec: ConsumerSpec, settings: ConsumeSettings = {}): MethodDecorator =>
  EventPattern<string>(spec.durable, { spec, settings } satisfies Extras);

/** Nest's own filter turns what it does not know into 'Internal server error'; this one keeps it. Use it globally. */
export class KeepError implements RpcExceptionFilter {
  catch(fault: unknown): Observable<never> {
    return throwError(() => fault);
  }
}
Catch()(KeepError);

/** Context of a delivery, `@Ctx()`. */
export class DeliveryContext extends BaseRpcContext<[Delivery]> {
  get delivery(): Delivery {
    return this.args[0];
  }
}

export interface JetStreamStrategyOptions {
  readonly bus: Bus;
  readonly log?: BusLog;
  readonly onSettled?: (settled: Settled) => void;
  /** How long `close` waits for handlers at work. Default 10 s. */
  readonly drainMs?: number;
}

export class JetStreamStrategy extends Server implements CustomTransportStrategy {
  override readonly transportId = Symbol('chronovirt-jetstream');
  // Otherwise Nest logs what a handler throws and keeps it to itself; here it decides what becomes of the message.
  override readonly propagatesEventHandlerErrors = true;
  private readonly consumptions: Consumption[] = [];
  private readonly options: JetStreamStrategyOptions;

  constructor(options: JetStreamStrategyOptions) {
    super();
    this.options = options;
  }

  override listen(callback: (fault?: unknown) => void): void {
    try {
      for (const [pattern, handler] of this.messageHandlers) this.start(pattern, handler as MessageHandler<Delivery, DeliveryContext>);
      callback();
    } catch (fault) {
      callback(fault);
    }
  }

  private start(pattern: string, handler: MessageHandler<Delivery, DeliveryContext>): void {
    const { spec, settings } = (handler.extras ?? {}) as Extras;
    if (spec === undefined) throw new TypeError(`${pattern} is not marked with @Consumes`);
    if (handler.next !== undefined) throw new TypeError(`${pattern} has two handlers`);
    const { bus, log = noLog, onSettled } = this.options;
    this.consumptions.push(consume({
      ...settings,
      bus,
      spec,
      log,
      ...(onSettled === undefined ? {} : { onSettled }),
      handle: async (delivery) => {
        const result: unknown = await handler(delivery, new DeliveryContext([delivery]));
        return isObservable(result) ? lastValueFrom(result, { defaultValue: undefined }) : result;
      },
    }));
  }

  /** For readiness: of each durable whether it is read. */
  statusOfConsumers(): { readonly ok: boolean; readonly says: string } {
    return this.consumptions.map((one) => one.status()).find(({ ok }) => !ok) ?? { ok: true, says: `reads ${this.consumptions.length} durables` };
  }

  override async close(): Promise<void> {
    await Promise.all(this.consumptions.map((one) => one.stop(this.options.drainMs)));
  }

  // Nest asks for an emitter of the transport's events. Ours are in the bus's own status.
  override on(): void {}

  override unwrap<T>(): T {
    return this.options.bus.nc as T;
  }
}
