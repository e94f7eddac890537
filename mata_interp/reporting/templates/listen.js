// The playhead follows the audio; a click in the figure seeks to that time.
const player = document.querySelector("audio");
const plot = document.querySelector(".plot");
const head = document.querySelector(".playhead");
const left = Number(plot.dataset.left), right = Number(plot.dataset.right);
function follow() {
  const part = player.duration ? player.currentTime / player.duration : 0;
  head.style.left = 100 * (left + (right - left) * part) + "%";
  if (!player.paused) requestAnimationFrame(follow);
}
for (const event of ["play", "seeked", "timeupdate"]) player.addEventListener(event, follow);
plot.addEventListener("click", (event) => {
  const box = plot.getBoundingClientRect();
  const part = ((event.clientX - box.left) / box.width - left) / (right - left);
  if (player.duration && part >= 0 && part <= 1) player.currentTime = part * player.duration;
});
follow();
