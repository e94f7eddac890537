// A pretend accelerator: device type "accel", two devices, whose memory and arithmetic are the CPU's.
//
// It is a backend like any other in PyTorch's PrivateUse1 slot, so that autograd, inference mode, views and
// storages are torch's own. Each storage on a device owns a storage on the host. An operator is run by its CPU
// kernel on tensors over those host storages, and its results are labelled with the device again. Operators that
// torch composes of others are composed here, too.
//
// Like a GPU it refuses tensors of two devices in one operator, and like MPS it has no float64. It counts
// kernels, copies and the places where the host has to wait for the device, and it can run out of memory.

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace {

constexpr auto ACCEL = c10::DeviceType::PrivateUse1;
constexpr int DEVICES = 2;

thread_local c10::DeviceIndex current = 0;

int index_of(c10::Device device) {
  return device.index() < 0 ? current : device.index();
}

// Counts ------------------------------------------------------------------------------------------------------

enum Kind { KERNELS, TO_DEVICE, TO_HOST, BETWEEN_DEVICES, WAITS, KINDS };

std::array<std::atomic<int64_t>, KINDS> counts{};
std::map<std::string, int64_t> kernels_by_name;
std::mutex names_lock;

void count_kernel(const std::string& name) {
  counts[KERNELS]++;
  const std::lock_guard<std::mutex> lock(names_lock);
  kernels_by_name[name]++;
}

// Operators whose result the host needs before it can go on.
const std::set<std::string> WAITING = {
    "aten::_local_scalar_dense",
    "aten::_unique2",
    "aten::bincount",
    "aten::equal",
    "aten::masked_select",
    "aten::nonzero",
    "aten::unique_consecutive",
    "aten::unique_dim",
};

// Memory ------------------------------------------------------------------------------------------------------

std::array<std::atomic<int64_t>, DEVICES> allocated{}, peak{};
std::atomic<int64_t> memory_limit{-1}; // bytes of each device; -1: no limit
std::atomic<bool> refuses_float64{true};
std::atomic<bool> sums_in_any_order{false};

// What a storage on a device owns.
struct Block {
  c10::Storage host;
  int device;
  int64_t bytes;
};

void free_block(void* context) {
  auto* block = static_cast<Block*>(context);
  allocated[block->device] -= block->bytes;
  delete block;
}

c10::DataPtr label(c10::Storage host, int device) {
  const auto bytes = static_cast<int64_t>(host.nbytes());
  const int64_t now = allocated[device] += bytes;
  if (memory_limit >= 0 && now > memory_limit) {
    allocated[device] -= bytes;
    TORCH_CHECK_WITH(
        OutOfMemoryError, false, "accel out of memory. Tried to allocate ", bytes, " bytes on accel:", device);
  }
  if (now > peak[device]) {
    peak[device] = now;
  }
  void* data = host.mutable_data();
  return {data, new Block{std::move(host), device, bytes}, &free_block, c10::Device(ACCEL, device)};
}

Block& block_of(const c10::Storage& storage) {
  auto* block = storage.data_ptr().cast_context<Block>(&free_block);
  TORCH_CHECK(block != nullptr, "A storage on accel was not allocated there.");
  return *block;
}

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    c10::Storage host(
        c10::Storage::use_byte_size_t(), c10::SymInt(static_cast<int64_t>(bytes)), c10::GetCPUAllocator(), true);
    return label(std::move(host), current);
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

Memory memory;
REGISTER_ALLOCATOR(ACCEL, &memory);

// After its host storage was resized, a storage on the device takes over pointer and size.
void follow_host(const c10::Storage& storage) {
  Block& block = block_of(storage);
  if (block.host.data() != storage.data() || static_cast<int64_t>(block.host.nbytes()) != block.bytes) {
    c10::Storage host = block.host;
    auto pointer = label(host, block.device);
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(pointer));
    storage.set_nbytes(host.nbytes());
  }
}

// Operators ---------------------------------------------------------------------------------------------------

bool same_shape(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.strides() == b.strides() && a.storage_offset() == b.storage_offset();
}

void copy_shape(const at::Tensor& from, const at::Tensor& to) {
  to.unsafeGetTensorImpl()->set_sizes_and_strides(from.sizes(), from.strides(), from.storage_offset());
}

// The tensors of one call of an operator, on the device and on the host.
class Call {
 public:
  explicit Call(std::string name) : name_(std::move(name)) {}

  std::optional<int> device() const {
    return device_;
  }

  void create_on(c10::Device device) {
    meet(index_of(device));
  }

  // An argument for the CPU's kernel. Indices may stay on the host, as on a GPU, which copies them.
  at::Tensor to_host(const at::Tensor& tensor, bool may_be_on_host = false) {
    if (!tensor.defined()) {
      return tensor;
    }
    if (tensor.device().type() != ACCEL) {
      if (tensor.dim() > 0 && may_be_on_host) {
        host_indices_++;
      } else if (tensor.dim() > 0) {
        strays_.push_back(tensor);
      }
      return tensor;
    }
    meet(tensor.device().index());
    auto host = at::detail::make_tensor<c10::TensorImpl>(
        host_storage(tensor.storage()), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
    copy_shape(tensor, host);
    tensors_.emplace_back(tensor, host);
    return host;
  }

  c10::Storage host_storage(const c10::Storage& storage) {
    if (storage.device_type() != ACCEL) {
      return storage;
    }
    c10::Storage host = block_of(storage).host;
    storages_.emplace_back(host.unsafeGetStorageImpl(), storage);
    return host;
  }

  void refuse_mixed_devices() const {
    if (device_ && !strays_.empty()) {
      TORCH_CHECK(
          false, "Expected all tensors to be on the same device, but ", name_, " got accel:", *device_, " and ",
          strays_[0].device(), " (a tensor of shape ", strays_[0].sizes(), ").");
    }
    counts[TO_DEVICE] += device_ ? host_indices_ : 0;
  }

  void refuse_generator(const at::Generator& generator) const {
    TORCH_CHECK(
        !device_ || generator.device().type() == ACCEL, "Expected a generator on accel, but ", name_, " got one on ",
        generator.device());
  }

  // A result on the device: an argument itself, a view of one, or a new tensor.
  at::Tensor to_device(const at::Tensor& host) {
    if (!host.defined() || !device_) {
      return host;
    }
    for (const auto& [tensor, its_host] : tensors_) {
      if (host.is_same(its_host)) {
        return tensor;
      }
      if (host.storage().is_alias_of(its_host.storage())) { // in inference mode, views of other tensors are as these
        auto view = at::detail::make_tensor<c10::TensorImpl>(
            c10::TensorImpl::VIEW, c10::Storage(tensor.storage()), tensor.key_set(), host.dtype());
        copy_shape(host, view);
        return view;
      }
    }
    TORCH_CHECK_TYPE(
        !refuses_float64 || (host.scalar_type() != at::kDouble && host.scalar_type() != at::kComplexDouble),
        "accel has no float64: ", name_, " would make a tensor of it.");
    auto tensor = at::detail::make_tensor<c10::TensorImpl>(
        device_storage(host.storage()), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), host.dtype());
    copy_shape(host, tensor);
    return tensor;
  }

  // Arguments that the kernel resized, or gave another storage.
  void update_arguments() {
    for (const auto& [tensor, host] : tensors_) {
      if (host.storage().unsafeGetStorageImpl() != block_of(tensor.storage()).host.unsafeGetStorageImpl()) {
        tensor.unsafeGetTensorImpl()->set_storage_keep_dtype(device_storage(host.storage()));
      }
      follow_host(tensor.storage());
      if (!same_shape(tensor, host)) {
        copy_shape(host, tensor);
      }
    }
  }

 private:
  void meet(int device) {
    TORCH_CHECK(device < DEVICES, "There is no accel:", device, ".");
    TORCH_CHECK(
        !device_ || *device_ == device,
        "Expected all tensors to be on the same device, but found at least two devices, accel:", *device_,
        " and accel:", device, ", in ", name_, ".");
    device_ = device;
  }

  c10::Storage device_storage(const c10::Storage& host) {
    for (const auto& [impl, storage] : storages_) {
      if (impl == host.unsafeGetStorageImpl()) {
        return storage;
      }
    }
    c10::Storage storage(
        c10::Storage::use_byte_size_t(), host.nbytes(), label(host, *device_), &memory, /*resizable=*/true);
    storages_.emplace_back(host.unsafeGetStorageImpl(), storage);
    return storage;
  }

  std::string name_;
  std::optional<int> device_;
  int64_t host_indices_ = 0;
  std::vector<at::Tensor> strays_; // tensors on the host
  std::vector<std::pair<at::Tensor, at::Tensor>> tensors_;
  std::vector<std::pair<c10::StorageImpl*, c10::Storage>> storages_; // of the host, and its storage on the device
};

// Whether an argument or a result is one of these is looked up by its value, not by the schema.
template <typename Translate>
c10::IValue translated(const c10::IValue& value, Translate translate) {
  if (value.isTensor()) {
    return translate(value.toTensor());
  }
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const auto& tensor : value.toTensorVector()) {
      list.push_back(translate(tensor));
    }
    return list;
  }
  return value;
}

bool is_mask(const at::Tensor& index) {
  return index.scalar_type() == at::kBool || index.scalar_type() == at::kByte;
}

c10::IValue argument(Call& call, const c10::IValue& value, bool& has_mask) {
  if (value.isOptionalTensorList()) { // the indices of x[...]
    c10::List<std::optional<at::Tensor>> list;
    for (const auto& index : value.toOptionalTensorVector()) {
      has_mask = has_mask || (index && index->defined() && is_mask(*index));
      list.push_back(index ? std::optional<at::Tensor>(call.to_host(*index, true)) : std::nullopt);
    }
    return list;
  }
  if (value.isDevice() && value.toDevice().type() == ACCEL) {
    call.create_on(value.toDevice());
    return c10::Device(c10::DeviceType::CPU);
  }
  if (value.isStorage()) {
    return call.host_storage(value.toStorage());
  }
  return translated(value, [&](const at::Tensor& tensor) { return call.to_host(tensor); });
}

void count(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> arguments, bool has_mask) {
  const auto& schema = op.schema();
  const auto& name = schema.name();
  // x[mask] = values needs the positions, and x[mask] = number does not; x[mask] asks `nonzero` for them
  const bool positions = has_mask && name == "aten::_index_put_impl_" && arguments[2].toTensor().numel() > 1;
  if (WAITING.count(name) || positions) {
    counts[WAITS]++;
  }
  const auto* alias = schema.returns().empty() ? nullptr : schema.returns()[0].alias_info();
  const bool view = alias != nullptr && !alias->isWrite();
  const bool no_work = view || name.rfind("aten::empty", 0) == 0 || name.rfind("aten::resize", 0) == 0 ||
      name.rfind("aten::set_", 0) == 0 || name == "aten::_local_scalar_dense";
  if (!no_work) {
    count_kernel(name);
  }
}

// A product of matrices as if its sums were taken in another order each time.
void round_anew(at::Tensor product) {
  static std::atomic<int> calls{0};
  if (product.scalar_type() == at::kFloat) {
    product.mul_(1.0 + 1.2e-7 * (calls++ * 7 % 5 - 2));
  }
}

const std::set<std::string> PRODUCTS = {"aten::addmm", "aten::baddbmm", "aten::bmm", "aten::mm"};

// Runs an operator by the CPU's kernel of `target`, which takes the same arguments.
void run_on_host(const c10::OperatorHandle& op, const c10::OperatorHandle& target, torch::jit::Stack* stack) {
  Call call(op.schema().name());
  bool has_mask = false;
  auto arguments = torch::jit::last(*stack, op.schema().arguments().size());
  const auto begin = stack->size() - arguments.size();
  for (size_t i = begin; i < stack->size(); i++) {
    (*stack)[i] = argument(call, (*stack)[i], has_mask);
  }
  for (size_t i = begin; i < stack->size(); i++) {
    if ((*stack)[i].isGenerator()) {
      call.refuse_generator((*stack)[i].toGenerator());
    }
  }
  call.refuse_mixed_devices();
  if (call.device()) {
    count(op, torch::jit::last(*stack, op.schema().arguments().size()), has_mask);
  }
  target.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  if (sums_in_any_order && call.device() && PRODUCTS.count(op.schema().name())) {
    round_anew(stack->back().toTensor());
  }
  call.update_arguments();
  for (size_t i = stack->size() - op.schema().returns().size(); i < stack->size(); i++) {
    (*stack)[i] = translated((*stack)[i], [&](const at::Tensor& host) { return call.to_device(host); });
  }
}

void run(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  run_on_host(op, op, stack);
}

void convolution(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  static const auto target = c10::Dispatcher::singleton().findSchemaOrThrow("aten::convolution", "");
  run_on_host(op, target, stack);
}

// What `copy_`, `to`, `cpu` and the like come down to; the only operator that takes two devices.
at::Tensor copy_from(const at::Tensor& source, const at::Tensor& target, bool) {
  Call from("copy"), to("copy");
  auto host_source = from.to_host(source);
  auto host_target = to.to_host(target);
  if (!from.device()) {
    counts[TO_DEVICE]++;
  } else if (!to.device()) {
    counts[TO_HOST]++;
    counts[WAITS]++;
  } else if (*from.device() != *to.device()) {
    counts[BETWEEN_DEVICES]++;
  } else {
    count_kernel("aten::copy_");
  }
  host_target.copy_(host_source);
  return target;
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("_copy_from", &copy_from);
  m.impl("convolution_overrideable", torch::CppFunction::makeFromBoxedFunction<&convolution>());
  // one kernel on every GPU, which torch would compose of others here
  m.impl("native_layer_norm", torch::CppFunction::makeFromBoxedFunction<&run>());
}

// The device --------------------------------------------------------------------------------------------------

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = ACCEL;
  c10::DeviceType type() const override {
    return ACCEL;
  }
  c10::Device exchangeDevice(c10::Device device) const override {
    const auto before = getDevice();
    uncheckedSetDevice(device);
    return before;
  }
  c10::Device getDevice() const override {
    return c10::Device(ACCEL, current);
  }
  void setDevice(c10::Device device) const override {
    uncheckedSetDevice(device);
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    current = static_cast<c10::DeviceIndex>(index_of(device));
  }
  c10::Stream getStream(c10::Device device) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return getStream(device);
  }
  c10::Stream getNewStream(c10::Device device, int) const override {
    return getStream(device);
  }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override {
    return stream;
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return DEVICES;
  }
  // everything is done at once, so there is nothing to wait for
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override {
    return true;
  }
  bool queryStream(const c10::Stream&) const override {
    return true;
  }
  void synchronizeStream(const c10::Stream&) const override {
    counts[WAITS]++;
  }
  void synchronizeDevice(const c10::DeviceIndex) const override {
    counts[WAITS]++;
  }
  void synchronizeEvent(void*) const override {
    counts[WAITS]++;
  }
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override {
    return true;
  }
  bool isAvailable() const override {
    return true;
  }
  bool hasPrimaryContext(c10::DeviceIndex) const override {
    return true;
  }
  c10::DeviceIndex deviceCount() const override {
    return DEVICES;
  }
  void setCurrentDevice(c10::DeviceIndex device) const override {
    current = device;
  }
  c10::DeviceIndex getCurrentDevice() const override {
    return current;
  }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex device) const override {
    return std::exchange(current, device);
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex device) const override {
    return std::exchange(current, device < 0 ? current : device);
  }
  c10::Allocator* getPinnedMemoryAllocator() const override {
    return c10::GetCPUAllocator();
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    const Block& block = block_of(storage);
    auto pointer = c10::GetCPUAllocator()->allocate(bytes);
    std::memcpy(pointer.get(), block.host.data(), std::min(bytes, block.host.nbytes()));
    block.host.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(pointer));
    block.host.set_nbytes(bytes);
    follow_host(storage);
  }
};

} // namespace

namespace at {
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);
}

// What accelerator.py calls -----------------------------------------------------------------------------------

extern "C" {

void accel_register() {
  at::RegisterPrivateUse1HooksInterface(new Hooks());
}

int64_t accel_count(int kind) {
  return counts.at(kind);
}

// "name number" of each kernel, one a line; valid until the next call.
const char* accel_kernels() {
  static std::string text;
  const std::lock_guard<std::mutex> lock(names_lock);
  text.clear();
  for (const auto& [name, number] : kernels_by_name) {
    text += name + " " + std::to_string(number) + "\n";
  }
  return text.c_str();
}

void accel_refuse_float64(bool refuse) {
  refuses_float64 = refuse;
}

void accel_sum_in_any_order(bool on) {
  sums_in_any_order = on;
}

void accel_limit_memory(int64_t bytes) {
  memory_limit = bytes;
}

int64_t accel_allocated(int device) {
  return allocated.at(device);
}

int64_t accel_peak(int device) {
  return peak.at(device);
}

void accel_reset_peak(int device) {
  peak.at(device) = allocated.at(device).load();
}
}
