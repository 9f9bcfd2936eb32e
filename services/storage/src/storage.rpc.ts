import { Controller, Inject } from '@nestjs/common';
import { Payload } from '@nestjs/microservices';
import { BackupReport, PoolReport } from '@chronovirt/contracts/agent/agent.commands';
import { backupCommands } from '@chronovirt/contracts/backup/backup.commands';
import { backupPolicyCommands } from '@chronovirt/contracts/backup-policy/backup-policy.commands';
import { imageCommands } from '@chronovirt/contracts/image/image.commands';
import { poolCommands } from '@chronovirt/contracts/pool/pool.commands';
import { volumeCommands } from '@chronovirt/contracts/volume/volume.commands';
import type { Answer } from '@chronovirt/decider/decider';
import { readDelivery } from '@chronovirt/host/read-delivery';
import { type Delivery, Reject } from '@chronovirt/messaging/consume';
import { Consumes } from '@chronovirt/messaging/strategy';
import { commandsOf, parseReportSubject, reportsFor } from '@chronovirt/messaging/topology';
import type { storage } from './storage.consumer.ts';

export const STORAGE = Symbol('storage');

const commands = { ...poolCommands, ...volumeCommands, ...imageCommands, ...backupCommands, ...backupPolicyCommands };

/** Storage's ears on the bus: parse, hand over, answer. */
@Controller()
export class StorageRpc {
  constructor(@Inject(STORAGE) private readonly parts: ReturnType<typeof storage>) {}

  @Consumes(commandsOf('storage'), { concurrency: 256, window: 1_024, confirmed: false })
  obey(@Payload() delivery: Delivery): Promise<Answer> {
    return this.parts.obey(readDelivery(commands, delivery));
  }

  @Consumes(reportsFor('storage', 'pool'), { concurrency: 16, confirmed: false })
  async report(@Payload() delivery: Delivery): Promise<void> {
    const report = PoolReport.safeParse(delivery.json());
    if (!report.success || report.data.nodeId !== parseReportSubject(delivery.subject)?.nodeId) throw new Reject('not a report of this node');
    await this.parts.report(report.data);
  }
  @Consumes(reportsFor('storage', 'backup'), { concurrency: 16, confirmed: false })
  async progress(@Payload() delivery: Delivery): Promise<void> {
    const report = BackupReport.safeParse(delivery.json());
    if (!report.success || report.data.nodeId !== parseReportSubject(delivery.subject)?.nodeId) throw new Reject('not a report of this node');
    await this.parts.progress(report.data);
  }
}
