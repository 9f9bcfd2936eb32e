/*
 * The bus, and the wires to it. A wire loses, repeats, delays and thereby reorders; a party that is cut off
 * neither hears nor is heard. What was stored is delivered until it is acknowledged, to whoever of a service's
 * replicas is there; it is delivered again when its holder died, lost it, or gave it back, so a handler sees
 * everything at least once and in any order. Answers, heartbeats and hellos are not stored: lost is lost.
 * The whole store may vanish at any moment.
 */
import type { CommandEnvelope } from '@chronovirt/contracts/command';
import type { Answer } from '@chronovirt/decider/decider';
import type { Life } from './program.ts';
import type { Weather } from './weather.ts';
import type { World } from './world.ts';

/** Whoever is connected: a life of a process, and where its answers go. */
export interface Party {
  readonly name: string;
  readonly life: Life;
  readonly answered: (commandId: string, answer: Answer) => void;
}

export interface Stored {
  /** 'scheduler', 'reports', or a node's id. */
  readonly queue: string;
  readonly body: unknown;
  readonly from: Party | undefined;
  readonly epoch: number;
  deliveries: number;
  settled: boolean;
}

export interface Consumer extends Party {
  /** Resolves when done: with the answer, if one is asked for. Rejects: it must come again. */
  readonly handle: (body: unknown) => Promise<Answer | undefined>;
}

/** How long the store waits for an acknowledgement before it delivers again. */
const ACK_WAIT_MS = 30_000;
const BACK_OFFS_MS = [100, 300, 1_000, 3_000, 10_000, 15_000] as const;
/** The delivery whose failure sets a message aside. */
const DELIVERIES_MAX = 20;

export class Bus {
  readonly dead: unknown[] = [];
  private readonly world: World;
  private readonly weather: () => Weather;
  /** Whoever is cut off, with what he says meanwhile: kept until he is reached again, or lost. */
  private readonly cut = new Map<string, (() => void)[] | undefined>();
  private readonly consumers = new Map<string, Set<Consumer>>();
  private readonly idle = new Map<string, Set<Stored>>();
  private readonly stored = new Set<Stored>();
  /** Whoever was the last to begin with a message, until he is done. */
  private readonly held = new Map<Stored, Consumer>();
  private epoch = 0;
  private away = false;
  /** When the last message that is on its way will have arrived. */
  private arrivedAt = 0;

  constructor(world: World, weather: () => Weather) {
    this.world = world;
    this.weather = weather;
  }

  /** Nothing is on its way, and nothing is stored for anyone who is there. */
  get empty(): boolean {
    if (this.world.elapsed < this.arrivedAt) return false;
    for (const { queue } of this.stored) if (this.reachable(queue).length > 0) return false;
    return true;
  }

  /** For people: what keeps it from being empty. */
  describe(): string {
    return [...this.stored].filter(({ queue }) => this.reachable(queue).length > 0).slice(0, 5)
      .map((message) => `${message.queue} ${JSON.stringify(message.body).slice(0, 160)} (${this.held.has(message) ? 'held' : 'waits'}, delivered ${String(message.deliveries)} times)`).join('; ');
  }

  isCut(name: string): boolean {
    return this.away || this.cut.has(name);
  }

  /** `keeping`: as a client does that connects again, and sends then what it was told to send meanwhile. */
  cutOff(name: string, keeping: boolean): void {
    this.world.tell(() => `${name} is cut off${keeping ? ', and keeps what it says' : ''}`);
    this.cut.set(name, keeping ? [] : undefined);
  }

  mend(name: string): void {
    if (!this.cut.has(name)) return;
    const kept = this.cut.get(name) ?? [];
    this.cut.delete(name);
    this.world.tell(() => `${name} is reached again${kept.length > 0 ? `, and had ${String(kept.length)} things to say` : ''}`);
    for (const say of kept) say();
    this.pumpAll();
  }

  /** What a process kept is gone with it. */
  forget(name: string): void {
    if (this.cut.get(name) !== undefined) this.cut.set(name, []);
  }

  /** The server goes away and comes back; what it had stored it keeps. */
  leave(): void {
    this.world.tell(() => 'the bus is away');
    this.away = true;
  }

  comeBack(): void {
    this.world.tell(() => 'the bus is back');
    this.away = false;
    this.pumpAll();
  }

  wipe(): void {
    this.world.tell(() => `the bus forgets ${String(this.stored.size)} messages`);
    this.epoch += 1;
    this.stored.clear();
    this.idle.clear();
    this.held.clear();
  }

  /** Brings something from one to the other: once, twice, late or never. */
  wire(from: string, to: string, arrive: () => void): void {
    const { random } = this.world;
    const weather = this.weather();
    const kept = this.cut.get(from);
    if (kept !== undefined && !this.away) {
      kept.push(() => { this.wire(from, to, arrive); });
      return;
    }
    if (this.isCut(from) || random.chance(weather.dropped)) return;
    const copies = random.chance(weather.repeated) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      const ms = random.chance(weather.late) ? random.between(weather.ordinaryMs, weather.lateMs) : random.between(0, weather.ordinaryMs);
      this.arrivedAt = Math.max(this.arrivedAt, this.world.elapsed + ms);
      this.world.after(ms, () => { if (!this.isCut(to)) arrive(); });
    }
  }

  send(from: Party, envelope: CommandEnvelope): void {
    const queue = envelope.to === 'node' ? envelope.target : envelope.to;
    this.wire(from.name, 'bus', () => { this.store({ queue, body: envelope, from, epoch: this.epoch, deliveries: 0, settled: false }); });
  }

  /** Resolves once it is stored, rejects when that is not known in time. */
  publish(from: Party, queue: string, body: unknown): Promise<void> {
    return new Promise((resolve, reject) => {
      this.world.after(5_000, () => { reject(new Error('the bus did not say that it has it')); });
      this.wire(from.name, 'bus', () => {
        this.store({ queue, body, from: undefined, epoch: this.epoch, deliveries: 0, settled: false });
        this.wire('bus', from.name, resolve);
      });
    });
  }

  /** To everyone who listens now; nothing is kept for those who do not. */
  broadcast(from: string, subject: string, body: unknown): void {
    for (const consumer of this.consumers.get(subject) ?? []) {
      this.wire(from, consumer.name, () => { if (consumer.life.on) void consumer.handle(body); });
    }
  }

  /** Asks one of those who listen now. The answer comes, or it does not. */
  request(from: Party, subject: string, body: unknown, answered: (answer: unknown) => void): void {
    const there = this.reachable(subject);
    if (there.length === 0) return;
    const consumer = this.world.random.pick(there);
    this.wire(from.name, consumer.name, () => {
      if (!consumer.life.on) return;
      consumer.handle(body).then(
        (answer) => { if (consumer.life.on && answer !== undefined) this.wire(consumer.name, from.name, () => { if (from.life.on) answered(answer); }); },
        (error: unknown) => { this.world.tell(() => `${consumer.name} did not answer ${subject}: ${String(error)}`); },
      );
    });
  }

  consume(queue: string, consumer: Consumer): void {
    const all = this.consumers.get(queue) ?? new Set();
    this.consumers.set(queue, all.add(consumer));
    this.pump(queue);
  }

  leaveQueue(queue: string, consumer: Consumer): void {
    this.consumers.get(queue)?.delete(consumer);
  }

  /** Those of a queue that can be reached now. */
  reachable(queue: string): readonly Consumer[] {
    const all = this.consumers.get(queue);
    if (all === undefined) return [];
    for (const one of all) if (!one.life.on) all.delete(one);
    return [...all].filter(({ name }) => !this.isCut(name));
  }

  private store(message: Stored): void {
    if (this.away) return;
    this.stored.add(message);
    this.offer(message);
  }

  private pumpAll(): void {
    for (const queue of [...this.idle.keys()]) this.pump(queue);
  }

  private pump(queue: string): void {
    const waiting = [...(this.idle.get(queue) ?? [])];
    this.idle.delete(queue);
    for (const message of waiting) this.offer(message);
  }

  private isGone(message: Stored): boolean {
    return message.settled || message.epoch !== this.epoch;
  }

  private offer(message: Stored): void {
    if (this.isGone(message)) return;
    const there = this.reachable(message.queue);
    if (there.length === 0) {
      const waiting = this.idle.get(message.queue) ?? new Set();
      this.idle.set(message.queue, waiting.add(message));
      return;
    }
    const consumer = this.world.random.pick(there);
    message.deliveries += 1;
    const { deliveries } = message;
    this.wire('bus', consumer.name, () => { if (consumer.life.on) this.deliver(message, consumer, deliveries); });
    this.world.after(ACK_WAIT_MS, () => { this.offerAgain(message, consumer, deliveries); });
  }

  /** A holder that is alive and at work says so; anybody else loses it. */
  private offerAgain(message: Stored, consumer: Consumer, deliveries: number): void {
    if (this.isGone(message) || message.deliveries !== deliveries) return;
    if (consumer.life.on && this.held.get(message) === consumer) this.world.after(ACK_WAIT_MS, () => { this.offerAgain(message, consumer, deliveries); });
    else this.offer(message);
  }

  private deliver(message: Stored, consumer: Consumer, deliveries: number): void {
    this.held.set(message, consumer);
    consumer.handle(message.body).then(
      (answer) => {
        if (!consumer.life.on) return;
        const { from } = message;
        if (from !== undefined && answer !== undefined) {
          const { id } = message.body as CommandEnvelope;
          this.wire(consumer.name, from.name, () => { if (from.life.on) from.answered(id, answer); });
        }
        this.release(message, consumer);
        this.wire(consumer.name, 'bus', () => {
          message.settled = true;
          this.stored.delete(message);
        });
      },
      (error: unknown) => {
        this.world.tell(() => `${consumer.name} gives back ${String((message.body as Partial<CommandEnvelope>).type)}: ${String(error)}`);
        this.release(message, consumer);
        // Given back once, though it may have come twice.
        if (!consumer.life.on || this.isGone(message) || message.deliveries !== deliveries) return;
        if (deliveries >= DELIVERIES_MAX) {
          message.settled = true;
          this.stored.delete(message);
          this.dead.push(message.body);
          return;
        }
        this.world.after(BACK_OFFS_MS[Math.min(deliveries, BACK_OFFS_MS.length) - 1] ?? 1_000, () => { if (message.deliveries === deliveries) this.offer(message); });
      },
    );
  }

  private release(message: Stored, consumer: Consumer): void {
    if (this.held.get(message) === consumer) this.held.delete(message);
  }
}
