// A process that publishes, wipes and withdraws without pause is killed at any moment, again and again, and each time the next one
// goes on with what it finds in the memory. Its argument is how often.
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <random>

#include "check.h"
#include "world.h"

using namespace inro;
using namespace inro::test;

namespace {

constexpr std::size_t services = 3;
constexpr std::size_t filesEach = 4;
constexpr std::size_t nodes = 256;
constexpr std::size_t heapBytes = 64 * 1024;
constexpr unsigned seed = 20'261'122;

// What the process that is going to be killed says of its work, beside the image. Each number is written before (`begun`) or after
// (`done`) what it speaks of.
struct Diary {
  std::atomic<std::uint64_t> begunRound;  // the values of this round may be in the memory
  std::atomic<std::uint64_t> doneRound;   // this generation is published
  std::atomic<std::uint64_t> begunWipe;   // values before this round are being wiped
  std::atomic<std::uint64_t> doneWipe;    // none of them is in the memory any more
  std::array<std::uint64_t, services> directories;
};

template <typename T>
T* shared(std::size_t bytes = sizeof(T)) {
  void* const start = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) std::abort();
  return static_cast<T*>(start);
}

std::string valueOf(std::uint64_t round, std::size_t service, std::size_t file) {
  return "value/" + std::to_string(round) + "/" + std::to_string(service) + "/" + std::to_string(file) + "/";
}

std::string pathOf(std::size_t service, std::size_t file) { return "s" + std::to_string(service) + "/f" + std::to_string(file); }

// Publishes all services in one step, a generation after the other; wipes the one before, sometimes after a withdrawal.
[[noreturn]] void work(Core& core, Diary& diary) {
  std::vector<Arena::PieceId> pieces;
  std::vector<std::uint64_t> files;
  // What the predecessor left is found by its nodes.
  Kernel kernel(core);
  const Image& image = core.nodes().image();
  for (const NodeRecord& node : image.nodes()) {
    if (node.id == 0 || static_cast<NodeKind>(node.kind) != NodeKind::file) continue;
    files.push_back(node.id);
    if (const auto piece = core.find(image.bytes().data() + node.content)) pieces.push_back(*piece);
  }
  Builder build(core);
  for (std::uint64_t round = diary.begunRound + 1;; round++) {
    diary.begunRound = round;
    std::vector<Arena::PieceId> newPieces;
    std::vector<std::uint64_t> newFiles;
    for (std::size_t service = 0; service < services; service++) {
      std::vector<std::pair<std::string, std::uint64_t>> entries;
      for (std::size_t file = 0; file < filesEach; file++) {
        const std::string text = valueOf(round, service, file);
        newPieces.push_back(build.value(text));
        newFiles.push_back(build.file(newPieces.back(), text.size()));
        entries.emplace_back("f" + std::to_string(file), newFiles.back());
      }
      build.fill(diary.directories[service], entries);
    }
    if (round % 3 == 0) {
      build.step.gone = files;
    } else {
      build.step.superseded = files;
      build.step.readableUntilMs = forEver;
    }
    if (!build.commit().empty()) std::abort();
    diary.doneRound = round;
    diary.begunWipe = round;
    for (const auto piece : pieces) core.release(piece);
    diary.doneWipe = round;
    pieces = std::move(newPieces);
    files = std::move(newFiles);
  }
}

// 0 when the services show different generations, or one of them files of several, or only some files.
std::uint64_t shownRound(Core& core) {
  Kernel kernel(core);
  const std::string first = kernel.content(pathOf(0, 0));
  if (first.find("value/") != 0) return 0;
  const std::uint64_t round = std::stoull(first.substr(6));
  for (std::size_t service = 0; service < services; service++) {
    for (std::size_t file = 0; file < filesEach; file++) {
      const std::string content = kernel.content(pathOf(service, file));
      if (content != valueOf(round, service, file)) {
        std::fprintf(stderr, "  %s is %s, not of round %llu\n", pathOf(service, file).c_str(), content.c_str(),
                     static_cast<unsigned long long>(round));
        return 0;
      }
    }
  }
  return round;
}

// The oldest round of which a value is in the memory.
std::uint64_t oldestIn(std::span<const std::byte> memory) {
  const std::string_view text(reinterpret_cast<const char*>(memory.data()), memory.size());
  std::uint64_t oldest = ~std::uint64_t{0};
  for (auto at = text.find("value/"); at != text.npos; at = text.find("value/", at + 1))
    oldest = std::min<std::uint64_t>(oldest, std::strtoull(text.data() + at + 6, nullptr, 10));
  return oldest;
}

}  // namespace

int main(int argc, char** argv) {
  const int kills = argc > 1 ? std::atoi(argv[1]) : 150;
  std::mt19937 random(seed);
  run("killed at any moment, again and again, what was published is whole and what was wiped is gone", [&] {
    const std::size_t bytes = layoutOf(nodes).heapOffset + heapBytes;
    const std::span<std::byte> memory(shared<std::byte>(bytes), bytes);
    Diary& diary = *shared<Diary>();
    {
      std::string error;
      auto core = Core::createOn(LockedMapping::borrow(memory), {heapBytes, true, nodes, 0, 0}, error);
      core->serveUntil(forEver);
      Kernel(*core).init();
      Builder build(*core);
      std::vector<std::pair<std::string, std::uint64_t>> names;
      for (std::size_t i = 0; i < services; i++) names.emplace_back("s" + std::to_string(i), diary.directories[i] = build.directory());
      build.fill(rootNode, names);
      CHECK_IS(build.commit(), "");
      (void)core.release();  // its end would wipe the image
    }
    std::uint64_t rounds = 0;
    std::uint64_t lastShown = 0;
    for (int i = 0; i < kills && failures == 0; i++) {
      const pid_t child = fork();
      if (child == 0) {
        std::string error;
        auto core = Core::adopt(LockedMapping::borrow(memory), error);
        if (!core) _exit(1);
        work(*core, diary);
      }
      usleep(random() % 4000);
      kill(child, SIGKILL);
      int status = 0;
      waitpid(child, &status, 0);
      CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

      // A look at a copy, so that the next process finds just what this one left.
      const std::span<std::byte> copy(shared<std::byte>(bytes), bytes);
      std::memcpy(copy.data(), memory.data(), bytes);
      std::string error;
      {
        auto core = Core::adopt(LockedMapping::borrow(copy), error);
        CHECK_IS(error, "");
        if (!core) break;
        if (diary.begunRound > 0 && !(diary.doneRound == 0 && core->nodesUsed() == 1 + services)) {
          const std::uint64_t shown = shownRound(*core);
          CHECK(shown != 0);
          // None that was done before is lost, and none that was seen.
          CHECK(shown >= diary.doneRound && shown >= lastShown && shown <= diary.begunRound);
          lastShown = shown;
        }
        CHECK(oldestIn(copy) >= diary.doneWipe);
        rounds = diary.doneRound;
      }
      munmap(copy.data(), bytes);
      // What is wiped when it returned is not in the memory itself either, not only after the adoption.
      if (diary.doneWipe == diary.begunWipe && diary.begunWipe == diary.doneRound) CHECK(oldestIn(memory) >= diary.doneWipe);
    }
    std::printf("# %d kills, %llu rounds\n", kills, static_cast<unsigned long long>(rounds));
    CHECK(rounds > 10);
  });
  return result();
}
